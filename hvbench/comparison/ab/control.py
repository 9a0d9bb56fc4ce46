"""Controls: what only the machine can change. A fixed numpy kernel timed beside every launch, and stolen processor time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

ROUNDS = 25
SIZE = 200_000


def measure_control_seconds() -> float:
    """Median seconds of a fixed kernel on one core (sorting and exponentials, no BLAS); takes about half a second."""
    values = np.random.default_rng(0).random(SIZE)
    _run_kernel(values)
    return statistics.median(_run_kernel(values) for _ in range(ROUNDS))


def _run_kernel(values: np.ndarray) -> float:
    begun = time.perf_counter()
    float(np.exp(-np.sort(values)).cumsum()[-1])
    return time.perf_counter() - begun


def stolen_share(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> float | None:
    """Share of processor time that the hypervisor gave to others between two `describe_load`; None where unknown."""
    try:
        stolen = after["steal_ticks"] - before["steal_ticks"]
        total = after["total_ticks"] - before["total_ticks"]
    except (KeyError, TypeError):
        return None
    return min(1.0, max(0.0, stolen / total)) if total > 0 else None
