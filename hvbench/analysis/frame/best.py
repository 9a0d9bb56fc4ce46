"""Readings of several candidates -> those of the best, without the luck of the draw.

The largest of many noisy readings is too high, the more of them there are. So a candidate is chosen by its readings in the
other rounds, and its reading in this round, which had no part in the choice, is taken (leave-one-out; the cross-validation
estimator of van Hasselt, arXiv:1302.7175).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

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
