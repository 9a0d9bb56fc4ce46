"""Controls: what only the machine can change. A fixed numpy kernel timed beside every launch or turn, and stolen processor time.

Launches that follow each other have the kernel before and after them, and the time stolen while they ran. Launches in turns span the
same seconds, so both of these would be the same for both arms and say nothing: the kernel is timed at the beginning of every
turn instead, while both arms are suspended, and an arm's control is of its own turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

ROUNDS = 25
SIZE = 200_000
TURN_SIZE = 4_000  # a fifth of a millisecond, a hundredth of a turn


def measure_control_seconds() -> float:
    """Median seconds of a fixed kernel on one core (sorting and exponentials, no BLAS); takes about half a second."""
    values = np.random.default_rng(0).random(SIZE)
    _run_kernel(values)
    return statistics.median(_run_kernel(values) for _ in range(ROUNDS))


def make_turn_control() -> Callable[[], float]:
    """Times the kernel once, on few values, each time it is called: seconds."""
    values = np.random.default_rng(0).random(TURN_SIZE)
    _run_kernel(values)
    return lambda: _run_kernel(values)


def summarize_turns(seconds: Sequence[float]) -> list[float]:
    """The control of a launch from those of its turns, in order: medians of the first and the second half; none from fewer than two."""
    half = len(seconds) // 2
    return [statistics.median(part) for part in (seconds[:half], seconds[half:])] if half else []


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
