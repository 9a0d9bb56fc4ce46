"""Were the frameworks shown to do the same work? The stamps of the check before the sweep, joined with the losses.

A configuration is compared when launches of it ended in `ok` in more than one framework. It is proven when every such
launch has a stamp, all of them are green, and the losses of the measured steps agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from hvbench.analysis.frame.axes import AXES, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.show.panels import describe_value, emulated_precisions
from hvbench.analysis.show.tables import (
    HEADERS,
    NOT_AVAILABLE,
    Table,
    clean_text,
    describe_constants,
    show_value,
)
from hvbench.analysis.stats.estimates import sort_points
from hvbench.analysis.topics.agreement import check_agreement, describe_configuration
from hvbench.records.record import ParityStamp, Record

MAX_NAMED = 5  # configurations that are named one by one
KINDS = ("logits", "loss", "gradient", "update")
HEADERS_OF_KINDS = ("logits", "loss", "gradients", "updates")
PROVEN, RED, MISSING = "proven", "not proven", "unchecked"
ALIKE = "The frameworks trained alike in this run."
NOT_ALIKE = "The frameworks were NOT proven to do the same work: do not compare their speed."
WITH_DROPOUT = (
    "Each framework draws its own masks for dropout: the check trained without it, and with it losses agree on average, "
    "which this run does not show."
)
UNCHECKED = (
    "No configuration ended in ok in more than one framework: do not compare their speed.",
    "Nothing shows that they trained alike in this run.",
)
NOTE = (
    "Before the sweep the frameworks train a few updates from the same weights and batches. Each figure is the "
    "largest ‖a − b‖ / ‖b‖ over tensors, updates and ranks, beside what is allowed; gradients are those after the "
    "all-reduce, compressed where the configuration compresses. Overflows: loss scales tried before the first gradient "
    "without one. n: launches that carry the stamp. The figures are deterministic and have no interval."
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the stamps of one configuration's launches say together."""

    configuration: str
    records: list[Record]
    verdict: str  # PROVEN, RED or MISSING
    stamp: ParityStamp | None  # the one that decided


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the frameworks' figures may be compared, and why; plain text."""

    is_proven: bool
    title: str
    text: str


def find_standings(records: Iterable[Record]) -> list[Standing]:
    """Every configuration with launches that ended in `ok` in more than one framework."""
    records = [record for record in records if record.outcome.status == "ok" and record.point.is_repeatable]
    points = point_frame(records)
    varying, emulated = [axis for axis in varying_axes(points) if axis != "framework"], emulated_precisions(points)
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(describe_configuration(record), []).append(record)
    standings = []
    for same in groups.values():
        if len({record.point.framework for record in same}) > 1:
            point = same[0].point
            shown = [
                describe_value(axis, getattr(point, axis), emulated=emulated) for axis in varying if axis != "gemm"
            ]
            name = ", ".join(shown) or "the only configuration"
            verdict, stamp = judge(record.parity for record in same)
            standings.append(Standing(configuration=name, records=same, verdict=verdict, stamp=stamp))
    return standings


def judge(stamps: Iterable[ParityStamp | None]) -> tuple[str, ParityStamp | None]:
    """The verdict of several launches' stamps, and the stamp that decides: a red one, else none if one is missing."""
    stamps = list(stamps)
    red = next((stamp for stamp in stamps if stamp and not stamp.is_proven), None)
    if red:
        return RED, red
    if not stamps or None in stamps:
        return MISSING, None
    return PROVEN, max(stamps, key=usage)


def usage(stamp: ParityStamp) -> float:
    """Which part of its tolerance the stamp's worst quantity uses up."""
    if not stamp.worst_tolerance or stamp.worst_relative_error is None:
        return 0.0
    return stamp.worst_relative_error / stamp.worst_tolerance


def check_verdict(records: Iterable[Record]) -> Verdict | None:
    """What a reader must know before comparing the frameworks; None where there is only one.

    Nothing can be said of an asynchronous server's launches, which are not alike even in one framework.
    """
    records = [record for record in records if record.point.is_repeatable]
    if len({record.point.framework for record in records}) < 2:
        return None
    standings, agreement = find_standings(records), check_agreement(records)
    if not standings:
        return Verdict(is_proven=False, title=UNCHECKED[0], text=UNCHECKED[1])
    red = [each for each in standings if each.verdict == RED]
    missing = [each for each in standings if each.verdict == MISSING]
    sentences = []
    if red:
        sentences.append(f"The check before the sweep found a difference in {name_all(red, of=len(standings))}.")
    if missing:
        sentences.append(f"No check was made before the sweep of {name_all(missing, of=len(standings))}.")
    if agreement and not agreement.is_proven:
        sentences.append("The losses of the measured steps differ.")
    is_proven = not sentences
    sentences += [describe_green(standings)] if is_proven else []
    sentences += [agreement.describe()] if agreement else []
    sentences += [WITH_DROPOUT] if any(record.point.dropout for record in records) else []
    return Verdict(is_proven=is_proven, title=ALIKE if is_proven else NOT_ALIKE, text=" ".join(sentences))


def describe_green(standings: list[Standing]) -> str:
    """One sentence with the figures of the check before the sweep."""
    stamps = [each.stamp for each in standings if each.stamp]
    closest = max(stamps, key=usage)
    numbers = sorted({stamp.updates for stamp in stamps})
    updates = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
    plural = "s" * (len(standings) != 1)
    whole = "both" if len({record.point.framework for each in standings for record in each.records}) == 2 else "all"
    return (
        f"Before it, {len(standings)} configuration{plural} trained {updates} updates in {whole} frameworks: logits, "
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


def name_all(standings: list[Standing], *, of: int) -> str:
    """`2 of 8 configurations: …`, each with what decided; the worst first, many cut short."""
    ordered = sorted(standings, key=lambda each: -(usage(each.stamp) if each.stamp else 0.0))
    shown = [
        each.configuration + (f" ({describe_worst(each.stamp)})" if each.stamp else "") for each in ordered[:MAX_NAMED]
    ]
    more = [f"{len(ordered) - MAX_NAMED} more"] if len(ordered) > MAX_NAMED else []
    return f"{len(standings)} of {of} configuration{'s' * (of != 1)}: {'; '.join([*shown, *more])}"


def parity_table(records: Iterable[Record]) -> Table:
    """One row per configuration and framework: errors of the check, each with its tolerance, and the verdict."""
    records = list(records)
    points = sort_points(point_frame(records))
    axes = ["framework", *(axis for axis in varying_axes(points) if axis != "framework")]
    rows, cells = [], []
    for point_id in points["point_id"].drop_duplicates():
        same = [record for record in records if record.point_id == point_id]
        point, (verdict, stamp) = same[0].point, judge(record.parity for record in same)
        stamp = stamp or next((record.parity for record in same if record.parity), None)
        stamped = sum(record.parity is not None for record in same)
        fields = {"point_id": point_id, **point.model_dump(), "launches": len(same), "launches_stamped": stamped}
        rows.append(fields | {"verdict": verdict} | (stamp.model_dump() if stamp else {}))
        cells.append(
            [
                *(show_value(getattr(point, axis)) for axis in axes),
                *(show_figure(stamp, kind) for kind in KINDS),
                str(stamp.overflows) if stamp else NOT_AVAILABLE,
                str(stamped),
                f"{verdict} ({describe_worst(stamp)})" if stamp and verdict == RED else verdict,
            ]
        )
    is_number = [pd.api.types.is_numeric_dtype(points[axis]) for axis in axes]
    fields = ["point_id", *AXES, "launches", "launches_stamped", "verdict", *ParityStamp.model_fields]
    return Table(
        name="parity",
        title="Parity",
        constants={axis: value for axis, value in describe_constants(points).items() if axis != "framework"},
        notes=(NOTE,),
        data=pd.DataFrame(rows, columns=fields),
        header=(*(HEADERS.get(axis, axis) for axis in axes), *HEADERS_OF_KINDS, "overflows", "n", "verdict"),
        is_number=(*is_number, *[True] * len(KINDS), True, True, False),
        is_brief=(True,) * (len(axes) + len(KINDS) + 3),
        cells=cells,
    )


def show_figure(stamp: ParityStamp | None, kind: str) -> str:
    """`1.2e-07 ≤ 5e-07`, or `>`; what was not compared is a dash."""
    tolerance = getattr(stamp, f"{kind}_tolerance") if stamp else None
    if stamp is None or tolerance is None:
        return NOT_AVAILABLE
    error = getattr(stamp, f"{kind}_relative_error")
    if error is None:
        return "not finite"
    return f"{error:.1e} {'≤' if error <= tolerance else '>'} {tolerance:.0e}"
