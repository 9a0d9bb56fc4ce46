"""Two launches of one round -> ln of their ratio: step by step where the metric is a rate or a step time."""

from __future__ import annotations

import numpy as np

from hvbench.analysis.frame.metrics import RATE, STEP
from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.analysis.stats.ratios import log_shift

BY_STEPS = (RATE, STEP)


def time_steps(samples: LaunchSamples, metric: str) -> np.ndarray:
    """(timed steps,): seconds of the slowest rank's steps; of RATE, seconds a token of all ranks."""
    if metric == STEP:
        return samples.slowest
    return samples.slowest / samples.step_tokens[samples.record.warmup_steps :]


def log_ratio_of_steps(metric: str, one: np.ndarray, other: np.ndarray) -> float:
    """ln(one / other) of a rate or a step time, from the `time_steps` of two launches (Hodges and Lehmann's shift)."""
    shift = log_shift(other, one)
    return -shift if metric == RATE else shift
