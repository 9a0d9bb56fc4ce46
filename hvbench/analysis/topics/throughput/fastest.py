"""Each framework's fastest point, as the cards of `report.html` and the list of `report.md` say it, in one wording."""

from __future__ import annotations

from dataclasses import dataclass

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import RATE
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summary_rows
from hvbench.analysis.topics.throughput.pairs import asked_rows, by_framework, describe_point, measured_rows, pick_best


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """One framework's fastest point; all but the first two are empty where no launch ended in `ok`."""

    framework: str
    label: str
    rate: str = ""  # tokens per second
    where: str = ""  # the axes that vary
    interval: str = ""
    note: str = ""  # how many other points it is faster than


def list_fastest(run: Run) -> list[Fastest]:
    """The fastest point of each framework that has a launch."""
    measured_of, asked_of = by_framework(measured_rows(run)), by_framework(asked_rows(run))
    found = []
    for framework in by_framework(summary_rows(run)):
        label = STYLES[framework].label
        measured = measured_of.get(framework)
        if not measured:
            found.append(Fastest(framework=framework, label=label))
            continue
        best, beaten = pick_best(measured)
        lost = len(asked_of[framework]) - len(measured)
        estimate = read_estimate(best, RATE)
        assert estimate is not None
        note = describe_rivals(estimate.low is not None, beaten=len(beaten), others=len(measured) - 1)
        found.append(
            Fastest(
                framework=framework,
                label=label,
                rate=format_number(estimate.centre),
                where=describe_point(best, run.other_axes) or "the only configuration",
                interval=describe_interval(estimate),
                note=f"{note} {lost} more had no launch that ended in ok.".strip() if lost else note,
            )
        )
    return found


def describe_interval(estimate: Estimate) -> str:
    """The interval of a rate and its n, or that there is none."""
    if estimate.low is None or estimate.high is None:
        return f"n = {estimate.n}, no interval"
    plural = "es" * (estimate.n != 1)
    return (
        f"{INTERVAL} {format_number(estimate.low)} to {format_number(estimate.high)}, n = {estimate.n} launch{plural}"
    )


def describe_rivals(has_interval: bool, *, beaten: int, others: int) -> str:
    """How many of the framework's other points the highest rate is faster than beyond both intervals."""
    if not others:
        return ""
    if not has_interval:
        return "The highest rate measured; one launch per point does not tell close points apart."
    if beaten == others:
        return (
            f"Its interval lies above those of all {others} others."
            if others > 1
            else "Its interval lies above the other's."
        )
    if not beaten:
        return "The highest rate measured, but its interval overlaps with all others: the order is not certain."
    return f"Its interval lies above those of {beaten} others; the other {others - beaten} cannot be told from it."
