"""The timed calls of one all-reduce case in a worker: trains of calls that follow each other at once, every value checked.

A call's time on a rank runs from the end of that rank's call before it to its own end, as that of a training step does. A
clock that starts behind a barrier would measure how far apart the ranks leave that, too, which is more than a small
all-reduce takes. So a train begins with a call that is not counted, and lines the ranks up as well as a call can.

Ranks contribute small integers that depend on the rank, the call and the element, so that sums are exact in every wire
format, and the result of an earlier call, or a sum that lacks a rank, is wrong in nearly every element.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hvbench.communication.record import CallSettings, Case
from hvbench.frameworks.contract import Collective, Runtime

LARGEST = 15  # largest contribution
SHIFTS = 64  # different patterns: call c and chunk k use the pattern shifted by (c + k) modulo this
CHUNK = 1 << 20  # elements
ROUNDOFF = {"none": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}  # unit roundoff of the wire format
ALLOWED_ROUNDINGS = 4  # of the mean, which need not be an integer
TRAIN_BYTES = 128 * 2**20  # of the contributions to a train's calls, each of which has its own

Enter = Callable[..., None]  # called with the phase that begins, for the worker's progress


class Pattern:
    """What this rank contributes to each call, and the mean over ranks that the all-reduce must return."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        index = np.arange(CHUNK + SHIFTS, dtype=np.int64)
        mean = sum(_numbers(index, other) for other in range(world_size)) / world_size
        self.own = _numbers(index, rank).astype(np.float32)
        self.mean = mean.astype(np.float32)

    def fill(self, values: np.ndarray, *, call: int) -> None:
        """Write this rank's contribution to `call` into `values` [elements]."""
        for chunk, begin in enumerate(range(0, values.size, CHUNK)):
            part, shift = values[begin : begin + CHUNK], (call + chunk) % SHIFTS
            part[:] = self.own[shift : shift + part.size]

    def check(self, values: np.ndarray, *, call: int, tolerance: float) -> tuple[int, float]:
        """(number of `values` [elements] with an error above `tolerance`, largest error), errors relative to LARGEST."""
        wrong, largest = 0, 0.0
        for chunk, begin in enumerate(range(0, values.size, CHUNK)):
            part, shift = values[begin : begin + CHUNK], (call + chunk) % SHIFTS
            error = np.abs(part - self.mean[shift : shift + part.size]) / LARGEST
            wrong += int(np.count_nonzero(~(error <= tolerance)))  # counts NaN as wrong, too
            largest = max(largest, float(np.nan_to_num(error, nan=np.finfo(np.float32).max, posinf=1e30).max()))
        return wrong, largest


def _numbers(index: np.ndarray, rank: int) -> np.ndarray:
    """Integers from 0 to LARGEST for each element's index, another sequence for each rank."""
    return (index * (2 * rank + 3) + index // 7 + 5 * rank) % (LARGEST + 1)


class Trains:
    """Trains of calls of one case on this rank; all ranks make the same ones."""

    def __init__(self, case: Case, collective: Collective, *, runtime: Runtime) -> None:
        self.collective = collective
        self.runtime = runtime
        self.pattern = Pattern(rank=runtime.rank, world_size=runtime.world_size)
        self.tolerance = ALLOWED_ROUNDINGS * ROUNDOFF[case.compression]
        self.values = np.empty(case.payload_bytes // 4, dtype=np.float32)
        self.longest = max(1, TRAIN_BYTES // case.payload_bytes - 1)  # calls that are counted
        self.wrong_elements, self.largest_relative_error = 0, 0.0
        self.call = 0  # number of the next one

    def run(self, calls: int) -> tuple[float, list[float]]:
        """A train; the seconds of the call at its head, from this rank's own exit of a barrier, and of each of the `calls` after it."""
        places = range(calls + 1)
        for place in places:
            self.pattern.fill(self.values, call=self.call + place)
            self.collective.fill(self.values, place=place)
        self.runtime.barrier()
        self.runtime.synchronize()
        ended = [time.perf_counter()]
        for place in places:
            self.collective.run(place)
            self.runtime.synchronize()
            ended.append(time.perf_counter())
        for place in places:
            self._check(self.collective.result(place), call=self.call + place)
        self.call += len(places)
        head, *seconds = np.diff(ended).tolist()
        return head, seconds

    def _check(self, values: np.ndarray, *, call: int) -> None:
        wrong, error = self.pattern.check(values, call=call, tolerance=self.tolerance)
        self.wrong_elements += wrong
        self.largest_relative_error = max(self.largest_relative_error, error)


def time_case(
    case: Case, settings: CallSettings, collective: Collective, *, runtime: Runtime, enter: Enter
) -> dict[str, Any]:
    """Time and check the calls of one case on this rank; all ranks must call this together, and make the same calls.

    Args:
        case: What to measure.
        settings: How many calls, and for how long.
        collective: All-reduces of `case.payload_bytes` / 4 float32 values.
        runtime: The framework, for barriers and synchronisation.
        enter: Called with the phase that begins.

    Returns:
        The measured fields of `RankCalls`: call_seconds, head_seconds, wrong_elements, largest_relative_error.
    """
    trains = Trains(case, collective, runtime=runtime)
    enter("warmup", step=0)
    for done in range(0, settings.warmup_calls, trains.longest):
        _, last = trains.run(min(trains.longest, settings.warmup_calls - done))
    slowest = max(runtime.gather(last[-1]))  # all ranks must make the same number of calls, or one would wait forever
    count = max(settings.least_calls, min(settings.most_calls, int(settings.budget_seconds / slowest)))
    heads, seconds = [], []
    for done in range(0, count, trains.longest):
        enter("measure", step=done, steps=count)
        head, calls = trains.run(min(trains.longest, count - done))
        heads.append(head)
        seconds += calls
    return {
        "call_seconds": seconds,
        "head_seconds": heads,
        "wrong_elements": trains.wrong_elements,
        "largest_relative_error": trains.largest_relative_error,
    }
