"""The stamps of the parity check before a sweep, and the losses of its launches -> whether the frameworks did the same work.

A configuration is compared when launches of it ended in `ok` in more than one framework. It is proven when every such
launch has a stamp, all of them are green, and the losses of the measured steps agree. Where a largest value was searched, each
framework has values of its own, and the stamps are of the field's default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hvbench.analysis.frame.axes import varying_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import describe_value, emulated_precisions
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.topics.parity.agreement import check_agreement, describe_configuration
from hvbench.analysis.topics.questions import searched_field
from hvbench.records.record import NOT_COMPARED, NOT_PROVEN, PROVEN, VERDICTS, ParityStamp, Record

MAX_NAMED = 5  # configurations that are named one by one
MISSING = "unchecked"  # beside the verdicts of a stamp
SAME_WORK = "The frameworks did the same work in this run."
OTHER_WORK = "The frameworks were NOT proven to do the same work: do not compare their speed."
UNPROVEN = "Nothing proves that the frameworks did the same work in this run: do not compare their speed."
WITH_DROPOUT = (
    "Each framework draws its own masks for dropout: the check trained without it, and with it losses agree on average, "
    "which this run does not show."
)
UNCHECKED = (
    "No configuration ended in ok in more than one framework: do not compare their speed.",
    "Nothing shows that they did the same work in this run.",
)


@dataclass(frozen=True, kw_only=True)
class ConfigurationParity:
    """What the stamps of one configuration's launches say together."""

    configuration: str
    records: list[Record]
    verdict: str  # one of VERDICTS, or MISSING
    stamp: ParityStamp | None  # the one that decided


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the frameworks' figures may be compared, and why; plain text."""

    is_proven: bool
    title: str
    text: str


def list_configurations(run: Run) -> list[ConfigurationParity]:
    """Every configuration with launches that ended in `ok` in more than one framework."""
    points = run.points_of(is_comparable)
    searched = searched_field(run)
    hidden = ("framework", "gemm", searched)  # gemm is a choice that one framework has
    axes, emulated = [axis for axis in varying_axes(points) if axis not in hidden], emulated_precisions(points)
    groups: dict[str, list[Record]] = {}
    for record in filter(is_comparable, run.records):
        groups.setdefault(describe_configuration(record, without=searched), []).append(record)
    found = []
    for same in groups.values():
        if len({record.point.framework for record in same}) > 1:
            point = same[0].point
            name = ", ".join(describe_value(axis, getattr(point, axis), emulated=emulated) for axis in axes)
            verdict, stamp = judge(record.parity for record in same)
            found.append(
                ConfigurationParity(
                    configuration=name or "the only configuration", records=same, verdict=verdict, stamp=stamp
                )
            )
    return found


def is_comparable(record: Record) -> bool:
    """Whether a launch says anything about parity: it ended in `ok`, and its point trains the same every time."""
    return record.outcome.status == "ok" and record.point.is_repeatable


def judge(stamps: Iterable[ParityStamp | None]) -> tuple[str, ParityStamp | None]:
    """The verdict of several launches' stamps, and the stamp that decides: the worst, else none if one is missing."""
    stamps = list(stamps)
    worst = min(filter(None, stamps), key=lambda stamp: VERDICTS.index(stamp.verdict), default=None)
    if worst and not worst.is_proven:
        return worst.verdict, worst
    if not stamps or None in stamps:
        return MISSING, None
    return PROVEN, max(stamps, key=usage)


def usage(stamp: ParityStamp) -> float:
    """Which part of its tolerance the stamp's worst quantity uses up."""
    if not stamp.worst_tolerance or stamp.worst_relative_error is None:
        return 0.0
    return stamp.worst_relative_error / stamp.worst_tolerance


def verdict_of(run: Run) -> Verdict | None:
    """What a reader must know before comparing the frameworks; None where there is only one. Computed once.

    Nothing can be said of an asynchronous server's launches, which differ from each other even in one framework.
    """
    return run.derive(_check_run)


def are_comparable(run: Run) -> bool:
    """Whether the frameworks' speeds may be compared: they provably did the same work."""
    verdict = verdict_of(run)
    return verdict is not None and verdict.is_proven


def _check_run(run: Run) -> Verdict | None:
    records = [record for record in run.records if record.point.is_repeatable]
    if len({record.point.framework for record in records}) < 2:
        return None
    checked, agreement = list_configurations(run), check_agreement(records)
    if not checked:
        return Verdict(is_proven=False, title=UNCHECKED[0], text=UNCHECKED[1])
    red = [one for one in checked if one.verdict == NOT_PROVEN]
    failed = [one for one in checked if one.verdict == NOT_COMPARED]
    missing = [one for one in checked if one.verdict == MISSING]
    sentences = []
    if red:
        sentences.append(f"The check before the sweep found a difference in {name_all(red, of=len(checked))}.")
    if failed:
        sentences.append(f"The check before the sweep could not compare {name_all(failed, of=len(checked))}.")
    if missing:
        sentences.append(f"No check was made before the sweep of {name_all(missing, of=len(checked))}.")
    is_different = bool(red) or (agreement is not None and not agreement.is_proven)
    if agreement and not agreement.is_proven:
        sentences.append("The losses of the measured steps differ.")
    is_proven = not sentences
    sentences += [describe_green(checked)] if is_proven else []
    sentences += [agreement.describe()] if agreement else []
    sentences += [WITH_DROPOUT] if any(record.point.dropout for record in records) else []
    title = SAME_WORK if is_proven else OTHER_WORK if is_different else UNPROVEN
    return Verdict(is_proven=is_proven, title=title, text=" ".join(sentences))


def describe_green(checked: list[ConfigurationParity]) -> str:
    """One sentence with the figures of the check before the sweep."""
    stamps = [one.stamp for one in checked if one.stamp]
    closest = max(stamps, key=usage)
    numbers = sorted({stamp.updates for stamp in stamps})
    updates = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
    plural = "s" * (len(checked) != 1)
    whole = "both" if len({record.point.framework for one in checked for record in one.records}) == 2 else "all"
    return (
        f"Before it, {len(checked)} configuration{plural} trained {updates} updates in {whole} frameworks: logits, "
        f"losses, gradients and updates agree within rounding (closest to its tolerance: {describe_worst(closest)})."
    )


def describe_worst(stamp: ParityStamp) -> str:
    """The quantity that decided, its error and its tolerance, or why nothing was compared."""
    if stamp.problem:
        return clean_text(stamp.problem, limit=300)
    if stamp.worst is None:
        return "nothing was compared"
    error = "not finite" if stamp.worst_relative_error is None else f"{stamp.worst_relative_error:.1e}"
    return f"{clean_text(stamp.worst)} {error}, allowed {stamp.worst_tolerance or 0.0:.0e}"


def name_all(checked: list[ConfigurationParity], *, of: int) -> str:
    """`2 of 8 configurations: …` with what decided about them; the worst first, many cut short."""
    ordered = sorted(checked, key=lambda one: -(usage(one.stamp) if one.stamp else 0.0))
    shown = [
        one.configuration + (f" ({describe_worst(one.stamp)})" if one.stamp else "") for one in ordered[:MAX_NAMED]
    ]
    more = [f"{len(ordered) - MAX_NAMED} more"] if len(ordered) > MAX_NAMED else []
    return f"{len(checked)} of {of} configuration{'s' * (of != 1)}: {'; '.join([*shown, *more])}"
