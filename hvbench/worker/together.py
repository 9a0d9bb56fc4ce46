"""The rate of a product by one rank alone and by all ranks together: virtual cores may share what multiplies.

Rounds of both follow each other, so that a machine that drifts moves both. A rank that rests sleeps until the window of the
others is over; at a barrier some libraries would keep its core busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hvbench.frameworks.contract import Runtime

ROUNDS = 3
WINDOW_SECONDS = 0.08  # of one reading, or longer for long calls; a call that should end later is not begun
CALLS = 2.2  # that a window has room for at least: one untimed, one timed


@dataclass(frozen=True, kw_only=True)
class Readings:
    """FLOP/s of this rank, one a round."""

    together: list[float] = field(default_factory=list)  # while all ranks multiply
    alone: list[float] = field(default_factory=list)  # while the others rest; rank 0 of several only


@dataclass(frozen=True, kw_only=True)
class Work:
    """A call to be repeated, `flops` of it, and how long it should take: the same on every rank."""

    run: Callable[[], None]
    flops: float
    expected_seconds: float
    overhead_seconds: float  # by which calling makes it longer

    @property
    def window_seconds(self) -> float:
        """Of one reading."""
        return max(WINDOW_SECONDS, CALLS * self.expected_seconds)


def read_together(runtime: Runtime, work: Work) -> Readings:
    """Readings of `work`; every rank calls it, with work of the same length."""
    readings = Readings()
    for _ in range(ROUNDS):
        if runtime.world_size > 1:
            runtime.barrier()
            if runtime.rank == 0:
                readings.alone.append(_read_window(runtime, work))
            else:
                time.sleep(work.window_seconds)
        runtime.barrier()
        readings.together.append(_read_window(runtime, work))
    return readings


def _read_window(runtime: Runtime, work: Work) -> float:
    """FLOP/s over a window: the mean of all calls but the first, which brings the caches and the other ranks to it; at least one."""
    deadline = time.perf_counter() + work.window_seconds
    begun = now = _call(runtime, work)
    calls, longest = 0, 0.0
    while not calls or now + longest <= deadline:
        ended = _call(runtime, work)
        calls, longest, now = calls + 1, max(longest, ended - now), ended
    seconds = (now - begun) / calls
    return work.flops / max(seconds - work.overhead_seconds, seconds / 2)


def _call(runtime: Runtime, work: Work) -> float:
    """Do the work once; when it ended."""
    work.run()
    runtime.synchronize()
    return time.perf_counter()
