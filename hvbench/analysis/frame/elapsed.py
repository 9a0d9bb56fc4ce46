"""Seconds of every rank and step -> the time that elapsed, and the series of the rank by whose clock it was longest.

A step's time on a rank runs from the end of that rank's step before to its own end, and the all-reduce couples the
ranks: a rank that was late in one step is so much shorter in the next. So each rank's sum is the time that elapsed, but
for one skew at either end. A maximum over the ranks taken step by step adds that skew once a step: with 10 ms of
computation and an update that takes an exponential 0.5 ms, 3 % at 2 ranks and 16 % at 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvbench.spec.point import AnyPoint, Point

Seconds = np.ndarray | Sequence[Sequence[float]]


def slowest_rank(seconds: Seconds) -> int:
    """Place of the rank whose own sum is the largest, of (ranks, steps); the first of those that are equal."""
    return int(np.asarray(seconds, dtype=float).sum(axis=1).argmax())


def slowest_series(seconds: Seconds) -> np.ndarray:
    """(steps,): the seconds of that rank; they add up to the time that elapsed."""
    return np.asarray(seconds, dtype=float)[slowest_rank(seconds)]


def steps_of_round(point: AnyPoint) -> int:
    """Steps of which one ends in an exchange: above 1 where ranks make local updates."""
    return point.sync_every if isinstance(point, Point) else 1


def mean_by_round(series: np.ndarray, *, steps: int) -> np.ndarray:
    """(rounds,): means over so many consecutive steps each, of which one ends in an exchange, wherever it lies; what is left over at the end is left out.

    A median of single steps would be that of the local ones, as if the exchanges took no time. Fewer steps than a round has are one.
    """
    rounds = len(series) // steps
    return series[: rounds * steps].reshape(rounds, steps).mean(axis=1) if rounds else series.mean(keepdims=True)


def elapsed_after_steps(seconds: Seconds) -> np.ndarray:
    """(steps,): the time that had elapsed at the end of each step, the largest of the ranks' own sums until then."""
    return np.asarray(seconds, dtype=float).cumsum(axis=1).max(axis=0)
