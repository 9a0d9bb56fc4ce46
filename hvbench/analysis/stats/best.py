"""The interval of a rate over that of the best of several candidates, which are known by noisy readings only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.ratios import locate

R = TypeVar("R", bound=Hashable)
C = TypeVar("C", bound=Hashable)


def bound_by_best(
    values: Mapping[R, float], readings: Mapping[C, Mapping[R, float]], *, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Interval of values / the best candidate's: the true ratio is the least of the ratios to each candidate.

    Values and readings of one round are a pair, whatever moved both, and each candidate's ratio has its t interval over the
    pairs. The least of their lower ends is below the least ratio unless the best candidate's own misses it; the least of
    their upper ends is above it unless any misses. So at most two candidates err together by no more than 1 - `confidence`,
    and with K of them each upper end gets a K-th of that.

    Args:
        values: Round -> value above 0.
        readings: Candidate -> round -> reading above 0.
        confidence: Nominal coverage.

    Returns:
        (low, high), or None where no candidate shares two rounds with the values.
    """
    pairs = [
        [math.log(values[when]) - math.log(reading) for when, reading in each.items() if when in values]
        for each in readings.values()
    ]
    located = [locate(logs) for logs in pairs if len(logs) > 1]
    if not located:
        return None
    beyond = min((1 - confidence) / 2, (1 - confidence) / len(located))
    low = min(where.quantile((1 - confidence) / 2) for where in located)
    high = min(where.quantile(1 - beyond) for where in located)
    with np.errstate(over="ignore"):  # two launches of a damaged record can differ by any factor
        return float(np.exp(low)), float(np.exp(high))
