"""What `--precision-target` aims at, and how far a run is from it: half widths of intervals, over their centres.

Where frameworks take turns the question is which is faster, so the ratio of the frameworks in every configuration is aimed at, by
the interval that the report gives it; elsewhere every point's tokens/s. An interval that has just become narrow may be so by
chance, and stopping there would keep the chance (optional stopping). So the intervals of the last LOOKS launches, or rounds, all
have to be narrow; how well the last one then covers was simulated, see docs/measurements.md. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import combinations

from hvbench.plan.earlier import pair_frameworks
from hvbench.plan.turns import Turns
from hvbench.records.record import Record
from hvbench.spec.point import Point

MIN_LAUNCHES = 3  # two that happen to agree would seem certain
LOOKS = 3

Pair = tuple[str, str]  # the point ids of one configuration in two frameworks


class Aim(StrEnum):
    """What is to be known to a precision; the value is run.json's word."""

    RATIOS = "ratios"  # of two frameworks' tokens/s, in every configuration that both train
    RATES = "rates"  # every point's tokens/s

    def describe(self, target: float) -> str:
        """`until …`, with the half width that is asked for."""
        if self is Aim.RATIOS:
            return (
                f"until the ratio of the frameworks' tokens/s is known to ± {100 * target:g} % in every configuration"
            )
        return f"until the tokens/s of every point are known to ± {100 * target:g} %"


def choose_aim(points: Sequence[Point], turns: Turns) -> Aim:
    """Ratios, where points that take turns train the same configuration in two frameworks; else rates."""
    together = [point for point in points if turns.side_of(point) is not None]
    return Aim.RATIOS if pair_frameworks(together) else Aim.RATES


def list_families(points: Sequence[Point]) -> list[list[tuple[Point, Point]]]:
    """For every two frameworks, the pairs of points that differ in nothing else: what a report judges together."""
    names = dict.fromkeys(point.framework for point in points)
    found = [pair_frameworks(point for point in points if point.framework in both) for both in combinations(names, 2)]
    return [pairs for pairs in found if pairs]


def half_widths_of_rates(records: Iterable[Record]) -> dict[str, float]:
    """Point id -> half width of the interval of its tokens/s / centre, the widest of the last LOOKS launches' looks.

    Of a script that does not say its tokens, the same of its step times, as the report tells them.
    """
    from hvbench.analysis.frame.run import Run

    run = Run(list(records))
    launches = run.points[run.points["status"] == "ok"].sort_values("repeat")
    return {
        str(name): widest_look(group[run.speed.column].astype(float).tolist())
        for name, group in launches.groupby("point_id", sort=False)
    }


def half_widths_of_ratios(
    records: Iterable[Record], families: Iterable[Sequence[tuple[Point, Point]]]
) -> dict[Pair, float]:
    """Pair -> the same of the ratio of its points' tokens/s, by the rule and in the families of the report."""
    from hvbench.analysis.contrasts.points import compare_by_round
    from hvbench.analysis.frame.run import Run

    run = Run(list(records))
    found: dict[Pair, float] = {}
    for family in families:
        pairs = [(one.point_id, other.point_id) for one, other in family]
        logs = compare_by_round(run, [({"point_id": one}, {"point_id": other}) for one, other in pairs])
        found |= zip(pairs, widest_looks(logs), strict=True)
    return found


def widest_look(rates: Sequence[float]) -> float:
    """The widest relative half width of the intervals after each of the last LOOKS launches, a rate each; infinite where one had too few."""
    from hvbench.analysis.stats.estimates import estimate_rate

    counts = range(len(rates) - LOOKS + 1, len(rates) + 1)
    if counts[0] < MIN_LAUNCHES:
        return math.inf
    return max(estimate_rate(rates[:count]).relative_half_width for count in counts)


def widest_looks(logs: Sequence[Mapping[int, float]]) -> list[float]:
    """The same of the contrasts of a family, round -> ln(A/B) each: after each of a contrast's last LOOKS rounds, and after all.

    A contrast that was narrow and has no more rounds may still become wider, for its error is pooled with the others'.
    """
    final, by_round = _half_widths(logs), {}
    for cut in sorted({cut for each in logs for cut in _last_rounds(each)}):
        by_round[cut] = _half_widths([{when: log for when, log in each.items() if when <= cut} for each in logs])
    found = []
    for place, each in enumerate(logs):
        is_enough = len(each) >= MIN_LAUNCHES + LOOKS - 1
        widths = [final[place], *(by_round[cut][place] for cut in _last_rounds(each))]
        found.append(max(widths) if is_enough else math.inf)
    return found


def _last_rounds(logs: Mapping[int, float]) -> list[int]:
    return sorted(logs)[-LOOKS:]


def _half_widths(logs: Sequence[Mapping[int, float]]) -> list[float]:
    """Of each contrast's corrected interval."""
    from hvbench.analysis.contrasts.precision import half_width_of
    from hvbench.analysis.stats.contrasts import judge_family, rows_by_round

    return [half_width_of(each) for each in judge_family(rows_by_round(logs)).contrasts]
