"""Quantiles of the upper tail, only where the samples carry them.

Of n samples the q-quantile stands for the n (1 - q) largest: with fewer than 1 / (1 - q) it is an interpolation below the
maximum, which a few more samples move by a lot. The "95th percentile" of five steps is their 81st at best.
"""

from __future__ import annotations

import math

import numpy as np

P95 = 0.95
P99 = 0.99


def samples_needed(probability: float) -> int:
    """Least number of samples with a quantile at `probability`, at or above a half: 20 for 0.95, 100 for 0.99."""
    return math.ceil(round(1 / (1 - probability), 6))


def tail_quantile(samples: np.ndarray, probability: float) -> float | None:
    """The quantile at `probability`, linear between samples; None where there are fewer than `samples_needed`."""
    return float(np.quantile(samples, probability)) if samples.size >= samples_needed(probability) else None
