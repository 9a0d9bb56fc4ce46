"""The rate of a product by one rank alone and by all ranks together: virtual cores may share what multiplies.

Rounds of both follow each other, so that a machine that drifts moves both. A rank that rests sleeps until the window of the
others is over; at a barrier some libraries would keep its core busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hvbench.frameworks.contract import Runtime

ROUNDS = 5  # short ones: what disturbs a machine lasts for milliseconds or for longer than all of them
WINDOW_SECONDS = 0.03  # of one reading, or longer for long calls; a timed call that should end later is not begun
CALLS = 2.2  # that a window has room for at least: one untimed, one timed

ReadWindow = Callable[[], float]  # FLOP/s of this rank over one window


@dataclass(frozen=True, kw_only=True)
class Readings:
    """FLOP/s of this rank, one a round."""

    together: list[float] = field(default_factory=list)  # while all ranks multiply
    alone: list[float] = field(default_factory=list)  # while the others rest; rank 0 of several only


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call to be repeated: what it does, waiting for the device included, the FLOPs of that, and how long it should take."""

    run: Callable[[], None]
    flops: float
    expected_seconds: float
    overhead_seconds: float  # by which calling makes it longer


def window_seconds(call_seconds: float) -> float:
    """The length of a window for calls that should take so long."""
    return max(WINDOW_SECONDS, CALLS * call_seconds)


def read_together(runtime: Runtime, read: ReadWindow, *, seconds: float) -> Readings:
    """Readings of windows of `seconds`; every rank calls it, with work of the same length."""
    readings = Readings()
    for _ in range(ROUNDS):
        if runtime.world_size > 1:
            runtime.barrier()
            if runtime.rank == 0:
                readings.alone.append(read())
            else:
                time.sleep(seconds)
        runtime.barrier()
        readings.together.append(read())
    return readings


def read_window(call: Call) -> float:
    """FLOP/s over a window: the mean of all calls but the first, which brings the caches and the other ranks to it; at least one.

    One call more follows: ranks do not begin at the same moment, and none shall end its timed calls alone.
    """
    deadline = time.perf_counter() + window_seconds(call.expected_seconds)
    begun = now = _ended(call)
    calls, longest = 0, 0.0
    while not calls or now + longest <= deadline:
        ended = _ended(call)
        calls, longest, now = calls + 1, max(longest, ended - now), ended
    call.run()
    seconds = (now - begun) / calls
    return call.flops / max(seconds - call.overhead_seconds, seconds / 2)


def _ended(call: Call) -> float:
    """Do the work once; when it ended."""
    call.run()
    return time.perf_counter()
