"""The shape of one launch's timed steps: how they depend on each other, lean to one side, and begin."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

MIN_STEPS = 4


def autocorrelation(seconds: np.ndarray) -> float | None:
    """Lag-1 autocorrelation of consecutive steps; None below MIN_STEPS or where neighbours are all alike."""
    return float(pd.Series(seconds).autocorr(lag=1)) if _varies(seconds) else None


def skewness(seconds: np.ndarray) -> float | None:
    """Skewness, corrected for bias; None under the same conditions."""
    return float(scipy_stats.skew(seconds, bias=False)) if _varies(seconds) else None


def first_ratio(seconds: np.ndarray) -> float | None:
    """First step / median of the others; None where there is no other. Above 1 in launch after launch: a trend."""
    return float(seconds[0] / np.median(seconds[1:])) if seconds.size > 1 else None


def _varies(seconds: np.ndarray) -> bool:
    """Whether a statistic of the shape of these values means anything."""
    return seconds.size >= MIN_STEPS and bool(np.ptp(seconds[1:]) > 0 and np.ptp(seconds[:-1]) > 0)
