"""Each framework's fastest point, as the cards of `report.html` and the list of `report.md` say it, in one wording."""

from __future__ import annotations

from dataclasses import dataclass

from hvbench.analysis.frame.metrics import PACE, TOKENS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number
from hvbench.analysis.show.effects import Scale
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summary_rows
from hvbench.analysis.topics.throughput.pairs import asked_rows, by_framework, describe_point, measured_rows, title_of
from hvbench.analysis.topics.throughput.sentences import Best, find_best


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """One framework's fastest point; all but the first two are empty where no launch ended in `ok`."""

    framework: str
    label: str
    rate: str = ""
    unit: str = ""  # of it, and of its interval
    where: str = ""  # the axes that vary
    interval: str = ""
    note: str = ""  # how many other points it is faster than


def title_fastest(run: Run) -> str:
    """What heads the list: frameworks have a fastest configuration each; steps that may do different work have the shortest."""
    if not run.is_of_scripts:
        return "Fastest configuration of each framework"
    return "Fastest configuration" if run.speed is TOKENS else "Shortest step time"


def list_fastest(run: Run) -> list[Fastest]:
    """The fastest point of each framework that has a launch."""
    measured_of, asked_of = by_framework(measured_rows(run)), by_framework(asked_rows(run))
    found = []
    for framework in by_framework(summary_rows(run)):
        label = title_of(run, framework)
        measured = measured_of.get(framework)
        if not measured:
            found.append(Fastest(framework=framework, label=label))
            continue
        best = find_best(run, measured)
        lost = len(asked_of[framework]) - len(measured)
        estimate = read_estimate(best.row, run.speed.column)
        assert estimate is not None
        note = describe_rivals(best, rounds=max((each.contrast.rounds for each in best.family.contrasts), default=0))
        found.append(
            Fastest(
                framework=framework,
                label=label,
                rate=format_number(run.speed.scale * estimate.centre),
                unit=run.speed.unit,
                where=describe_point(best.row, run.other_axes) or "the only configuration",
                interval=describe_interval(estimate, scale=run.speed.scale),
                note=f"{note} {lost} more had no launch that ended in ok.".strip() if lost else note,
            )
        )
    return found


def describe_interval(estimate: Estimate, *, scale: float = 1.0) -> str:
    """The interval of a rate, `scale` times its own unit, and its n, or that there is none."""
    if estimate.low is None or estimate.high is None:
        return f"n = {estimate.n}, no interval"
    plural = "es" * (estimate.n != 1)
    low, high = (format_number(scale * end) for end in (estimate.low, estimate.high))
    return f"{INTERVAL} {low} to {high}, n = {estimate.n} launch{plural}"


def describe_rivals(best: Best, *, rounds: int) -> str:
    """How many of the framework's other points the highest rate is faster than, and by how much at least."""
    others = len(best.family.contrasts)
    what = "shortest step time" if best.family.metric == PACE else "highest rate"
    if not others:
        return ""
    if rounds < 2:
        return f"The {what} measured; one launch of a point ranks nothing."
    faster, equal = best.called(Call.FASTER), best.called(Call.EQUAL)
    rest = others - len(faster) - len(equal)
    parts = []
    if faster:
        closest = min(each.contrast.ratio for each in faster)
        scale = Scale.of([closest], is_larger=True)
        least = f"{scale.show(closest)}{scale.unit or ' times'}"
        whom = (
            f"all {others} others"
            if len(faster) == others > 1
            else "the other"
            if others == 1
            else f"{len(faster)} of {others} others"
        )
        parts.append(f"faster than {whom}, by {least}{' or more' if len(faster) > 1 else ''}")
    if equal:
        parts.append(f"within {100 * EQUAL_WITHIN:g} % of {len(equal)}")
    if rest:
        parts.append(f"{rest} open after {rounds} rounds")
    text = "; ".join(parts)
    return f"The {what} measured: {text}." if not faster else f"{text[0].upper()}{text[1:]}."
