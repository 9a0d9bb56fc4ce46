"""Time to a target when some launches never reach it: censored, not left out.

A mean over the launches that got there is a mean over the lucky ones. Kaplan and Meier (J. Am. Stat. Assoc. 53, 1958)
keep the others as what they are: still on the way when they were last seen. A launch that diverged, or that gave up
(patience), never arrives, however long one waits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from hvbench.analysis.stats.confidence import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One launch: `value` is when it reached the target, or until when it was seen not to (infinite: for ever)."""

    value: float
    is_reached: bool


def all_reached(launches: Sequence[Observed]) -> bool:
    """Whether every launch reached the target."""
    return all(one.is_reached for one in launches)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """When half of the launches have arrived; None where fewer than half did, or where the interval is open."""

    median: float | None
    low: float | None
    high: float | None
    n: int
    reached: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of launches that have arrived, as steps: `shares[i]` from `values[i]` on."""

    values: list[float]
    shares: list[float]


def estimate_arrival(launches: Sequence[Observed]) -> Arrival:
    """The Kaplan-Meier median and its interval, in the unit of `value`.

    The interval holds every time at which the interval (log-log) of the share still on the way contains one half
    (Brookmeyer and Crowley, Biometrics 38, 1982). ValueError without launches.
    """
    reached = sum(one.is_reached for one in launches)
    if not launches:
        raise ValueError("an arrival needs at least one launch")
    if not reached:
        return Arrival(median=None, low=None, high=None, n=len(launches), reached=0)
    survival = _fit(launches).sf
    bounds = (None, None)
    if len(launches) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no variance where nobody is left
            interval = survival.confidence_interval(CONFIDENCE, method="log-log")
        nobody_left = survival.probabilities <= 0.0
        low = np.where(nobody_left, 0.0, interval.low.probabilities)
        bounds = tuple(_first_at_most_half(survival.quantiles, end) for end in (low, interval.high.probabilities))
    median = _first_at_most_half(survival.quantiles, survival.probabilities)
    return Arrival(median=median, low=bounds[0], high=bounds[1], n=len(launches), reached=reached)


def share_arrived(launches: Sequence[Observed]) -> Share:
    """One minus the Kaplan-Meier estimate; empty where nobody arrived."""
    if not any(one.is_reached for one in launches):
        return Share(values=[], shares=[])
    cdf = _fit(launches).cdf
    return Share(values=cdf.quantiles.tolist(), shares=cdf.probabilities.tolist())


def _fit(launches: Sequence[Observed]):
    last = max(one.value for one in launches if math.isfinite(one.value))
    values = np.array([min(one.value, last + 1.0) for one in launches])  # beyond all others is as good as for ever
    return scipy_stats.ecdf(scipy_stats.CensoredData.right_censored(values, [not one.is_reached for one in launches]))


def _first_at_most_half(values: np.ndarray, probabilities: np.ndarray) -> float | None:
    found = np.flatnonzero(probabilities <= 0.5 + 1e-12)  # NaN, where there is no variance, is no bound
    return float(values[found[0]]) if found.size else None
