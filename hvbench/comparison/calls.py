"""Which word a change is called by: worse, better, same or unclear. The one rule of `hvbench compare`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hvbench.analysis.stats.ratios import adjust_holm
from hvbench.comparison.result import Change, PointComparison

MIN_LAUNCHES = 6  # a side; below them there is no verdict
MARGIN = 0.03  # a change that is smaller is none
SIGNIFICANT = 0.05  # after correction for the number of points (decisive metrics) or of all figures (shown ones)


def call_changes(points: Sequence[PointComparison], *, margin: float) -> list[PointComparison]:
    """The points with a word for every change, p-values corrected (Holm) among the decisive figures and among the rest.

    A point whose sides did not do the same work gets corrected p-values and no words.
    """
    adjusted = adjust_p_values(points)

    def call(i: int, j: int) -> Change:
        change = replace(points[i].changes[j], adjusted_p_value=adjusted.get((i, j)))
        return replace(change, call=None if points[i].mismatch else call_change(change, margin=margin))

    return [
        replace(point, changes=tuple(call(i, j) for j in range(len(point.changes)))) for i, point in enumerate(points)
    ]


def adjust_p_values(points: Sequence[PointComparison]) -> dict[tuple[int, int], float]:
    """(index of the point, index of its change) -> corrected p-value."""
    adjusted: dict[tuple[int, int], float] = {}
    for is_decisive in (True, False):
        family = [
            (i, j)
            for i, point in enumerate(points)
            for j, change in enumerate(point.changes)
            if change.metric.is_decisive == is_decisive and change.ratio.p_value is not None
        ]
        p_values = adjust_holm([points[i].changes[j].ratio.p_value for i, j in family])
        adjusted |= dict(zip(family, p_values, strict=True))
    return adjusted


def call_change(change: Change, *, margin: float) -> str:
    """`worse` or `better`: significant and at least the margin; `same`: the interval lies within it; else `unclear`."""
    estimate, low, high = change.worse
    if low is None or min(change.ratio.n_a, change.ratio.n_b) < MIN_LAUNCHES:
        return "unclear"
    if change.adjusted_p_value <= SIGNIFICANT and abs(estimate) >= margin:
        return "worse" if estimate > 0 else "better"
    return "same" if -margin < low and high < margin else "unclear"
