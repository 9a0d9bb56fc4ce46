"""A rate against the best of several candidates that are known by noisy readings only.

The largest of many noisy readings is too high, the more of them there are. So for the centre a candidate is chosen by its
readings in the other rounds, and its reading in this round, which had no part in the choice, is taken (leave-one-out; the
cross-validation estimator of van Hasselt, arXiv:1302.7175). Such values are not independent of each other, so the interval
comes from the candidates themselves.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.ratios import locate

R = TypeVar("R", bound=Hashable)
C = TypeVar("C", bound=Hashable)


def best_by_others(readings: Mapping[C, Mapping[R, float]]) -> dict[R, float]:
    """Each round's reading of the candidate that is best by the geometric mean of its readings in the other rounds.

    Args:
        readings: Candidate -> round -> reading above 0. A candidate may lack rounds.

    Returns:
        Round -> reading, for each round that has any. In a round whose candidates were read in no other, the largest.
    """
    logs = {name: {when: math.log(value) for when, value in values.items()} for name, values in readings.items()}
    totals = {name: sum(values.values()) for name, values in logs.items()}
    rounds = dict.fromkeys(when for values in logs.values() for when in values)

    def score(name: C, when: R) -> tuple[bool, float]:
        others = len(logs[name]) - 1
        return (others > 0, (totals[name] - logs[name][when]) / others if others else logs[name][when])

    best = {
        when: max((name for name in logs if when in logs[name]), key=lambda name, when=when: score(name, when))
        for when in rounds
    }
    return {when: readings[name][when] for when, name in best.items()}


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
        [math.log(values[when] / reading) for when, reading in each.items() if when in values]
        for each in readings.values()
    ]
    located = [locate(logs) for logs in pairs if len(logs) > 1]
    if not located:
        return None
    beyond = min((1 - confidence) / 2, (1 - confidence) / len(located))
    low = min(where.quantile((1 - confidence) / 2) for where in located)
    high = min(where.quantile(1 - beyond) for where in located)
    return math.exp(low), math.exp(high)
