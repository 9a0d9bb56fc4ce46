"""Which word a change is called by: worse, better, same or unclear, by the one rule of "faster". Pure.

A family is one metric of one side at all points that are compared: `hvbench.analysis.stats.contrasts` corrects it, and judges its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hvbench.analysis.frame.metrics import Metric
from hvbench.analysis.stats.contrasts import (
    Call,
    Contrast,
    Family,
    as_ratios,
    judge_family,
    judge_samples,
    rows_by_round,
)
from hvbench.comparison.result import Change, PointComparison

Means = dict[tuple[str, str], Contrast]  # (side, metric) -> that side over the reference, over all points


def call_changes(points: Sequence[PointComparison]) -> tuple[list[PointComparison], Means]:
    """The points with a contrast (B over A) and a word for every change, and the means over all points.

    A point whose sides did not do the same work gets contrasts and no words.
    """
    families: dict[tuple[str, str, bool], list[tuple[int, int]]] = {}
    for i, point in enumerate(points):
        for j, change in enumerate(point.changes):
            families.setdefault((point.arm_b, change.metric.name, bool(change.worse_by)), []).append((i, j))
    found: dict[tuple[int, int], Contrast] = {}
    means: Means = {}
    for (arm, metric, is_paired), places in families.items():
        changes = [points[i].changes[j] for i, j in places]
        family = judge_pairs(changes) if is_paired else judge_sides(changes)
        found |= dict(zip(places, family.contrasts, strict=True))
        if family.mean and not any(points[i].mismatch for i, _ in places):
            means[arm, metric] = family.mean
    called = [
        replace(point, changes=tuple(_call(point, change, found[i, j]) for j, change in enumerate(point.changes)))
        for i, point in enumerate(points)
    ]
    return called, means


def judge_pairs(changes: Sequence[Change]) -> Family:
    """Launches of the same job and repeat are one round."""
    signs = [1.0 if change.metric.is_lower_better else -1.0 for change in changes]
    logs = [
        {launch: sign * worse for launch, worse in zip(change.launches_a, change.worse_by, strict=True)}
        for change, sign in zip(changes, signs, strict=True)
    ]
    return judge_family(rows_by_round(logs))


def judge_sides(changes: Sequence[Change]) -> Family:
    """Launches that were not interleaved: two independent samples."""
    a, b = (
        rows_by_round([dict(zip(launches, np.log(values).tolist(), strict=True)) for launches, values in sides])
        for sides in (
            [(change.launches_a, change.values_a) for change in changes],
            [(change.launches_b, change.values_b) for change in changes],
        )
    )
    return as_ratios(judge_samples(b, a))


def _call(point: PointComparison, change: Change, contrast: Contrast) -> Change:
    return replace(change, contrast=contrast, call=None if point.mismatch else word_for(contrast, change.metric))


def word_for(contrast: Contrast, metric: Metric) -> str:
    """`worse`, `better`, `same` or `unclear` of B, whose contrast is B over A."""
    if contrast.call in (Call.EQUAL, Call.OPEN):
        return "same" if contrast.call == Call.EQUAL else "unclear"
    return "worse" if (contrast.call == Call.FASTER) == metric.is_lower_better else "better"
