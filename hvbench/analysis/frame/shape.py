"""The shape of one launch's timed steps: how they depend on each other, lean to one side, and begin."""

from __future__ import annotations

import numpy as np

MIN_STEPS = 4


def autocorrelation(seconds: np.ndarray) -> float | None:
    """Lag-1 autocorrelation of consecutive steps; None below MIN_STEPS or where neighbours are all equal."""
    return _correlate(seconds[1:], seconds[:-1]) if _varies(seconds) else None


def skewness(seconds: np.ndarray) -> float | None:
    """Skewness, corrected for bias; None under the same conditions.

    By hand, in the order of scipy.stats.skew: that takes half a millisecond a launch, most of it to look at its arguments.
    """
    if not _varies(seconds):
        return None
    n, deviations = seconds.size, seconds - seconds.mean()
    squares = deviations**2
    variance, third = squares.mean(), (squares * deviations).mean()
    if variance <= (np.finfo(float).eps * seconds.mean()) ** 2:
        return float("nan")  # values that differ by rounding alone
    return float(((n - 1.0) * n) ** 0.5 / (n - 2.0) * third / variance**1.5)


def first_ratio(seconds: np.ndarray) -> float | None:
    """First step / median of the others; None where there is no other. Above 1 in launch after launch: a trend."""
    return float(seconds[0] / np.median(seconds[1:])) if seconds.size > 1 else None


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of values that vary, in the order in which pandas computes it and without its overhead."""
    scaled = [(values - values.mean()) / np.abs(values - values.mean()).max() for values in (a, b)]
    freedom = a.size - 1
    spreads = [np.sqrt(np.dot(values, values) / freedom) for values in scaled]
    return float(np.clip(np.dot(*scaled) / freedom / spreads[0] / spreads[1], -1.0, 1.0))


def _varies(seconds: np.ndarray) -> bool:
    """Whether a statistic of the shape of these values means anything."""
    return seconds.size >= MIN_STEPS and bool(np.ptp(seconds[1:]) > 0 and np.ptp(seconds[:-1]) > 0)
