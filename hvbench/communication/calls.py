"""The timed calls of one all-reduce case in a worker: fill, barrier, timed all-reduce, check of every value.

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


def time_case(
    case: Case, settings: CallSettings, collective: Collective, *, runtime: Runtime, enter: Enter
) -> dict[str, Any]:
    """Time and check the calls of one case on this rank; all ranks must call this together, and make the same calls.

    Args:
        case: What to measure.
        settings: How many calls, and for how long.
        collective: The all-reduce of `case.payload_bytes` / 4 float32 values.
        runtime: The framework, for barriers and synchronisation.
        enter: Called with the phase that begins.

    Returns:
        The measured fields of `RankCalls`: call_seconds, wrong_elements, largest_relative_error.
    """
    pattern = Pattern(rank=runtime.rank, world_size=runtime.world_size)
    tolerance = ALLOWED_ROUNDINGS * ROUNDOFF[case.compression]
    values = np.empty(case.payload_bytes // 4, dtype=np.float32)
    wrong, largest = 0, 0.0

    def call(number: int) -> float:
        nonlocal wrong, largest
        pattern.fill(values, call=number)
        collective.fill(values)
        runtime.barrier()  # ranks start together, so the slowest rank's time is what a training step would wait for
        runtime.synchronize()
        begun = time.perf_counter()
        collective.run()
        runtime.synchronize()
        seconds = time.perf_counter() - begun
        bad, error = pattern.check(collective.result(), call=number, tolerance=tolerance)
        wrong, largest = wrong + bad, max(largest, error)
        return seconds

    enter("warmup", step=0)
    for number in range(settings.warmup_calls):
        last = call(number)
    slowest = max(runtime.gather(last))  # all ranks must make the same number of calls, or one would wait forever
    count = max(settings.least_calls, min(settings.most_calls, int(settings.budget_seconds / slowest)))
    seconds = []
    for number in range(count):
        enter("measure", step=number, steps=count)
        seconds.append(call(settings.warmup_calls + number))
    return {"call_seconds": seconds, "wrong_elements": wrong, "largest_relative_error": largest}
