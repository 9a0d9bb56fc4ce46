"""One case in a worker: fill, wait for all, all-reduce under the clock, and check every value of every call.

What a rank contributes are small whole numbers that depend on the rank, the call and the place, so that sums are exact in
every wire format and a result of the call before, or one without a rank, is wrong nearly everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hvbench.communication.record import CallSettings, Case
from hvbench.frameworks.contract import Collective, Runtime

LARGEST = 15
SHIFTS = 64
CHUNK = 1 << 20  # elements
ROUNDOFF = {"none": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}  # of what goes on the wire
ALLOWED_ROUNDINGS = 4  # of the mean, which need not be a whole number

Enter = Callable[..., None]


class Pattern:
    """What each rank contributes to a call, and what their mean must be."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        place = np.arange(CHUNK + SHIFTS, dtype=np.int64)
        mean = sum(_numbers(place, each) for each in range(world_size)) / world_size
        self.mine = _numbers(place, rank).astype(np.float32)
        self.mean = mean.astype(np.float32)

    def fill(self, values: np.ndarray, *, call: int) -> None:
        """Write this rank's contribution to `call` into `values`."""
        for chunk, begin in enumerate(range(0, values.size, CHUNK)):
            part, shift = values[begin : begin + CHUNK], (call + chunk) % SHIFTS
            part[:] = self.mine[shift : shift + part.size]

    def check(self, values: np.ndarray, *, call: int, tolerance: float) -> tuple[int, float]:
        """(values that are further from the mean than `tolerance`, largest distance), both relative to LARGEST."""
        wrong, largest = 0, 0.0
        for chunk, begin in enumerate(range(0, values.size, CHUNK)):
            part, shift = values[begin : begin + CHUNK], (call + chunk) % SHIFTS
            error = np.abs(part - self.mean[shift : shift + part.size]) / LARGEST
            wrong += int(np.count_nonzero(~(error <= tolerance)))  # a NaN is wrong, too
            largest = max(largest, float(np.nan_to_num(error, nan=np.finfo(np.float32).max, posinf=1e30).max()))
        return wrong, largest


def _numbers(place: np.ndarray, rank: int) -> np.ndarray:
    """Whole numbers from 0 to LARGEST that no two ranks have in common."""
    return (place * (2 * rank + 3) + place // 7 + 5 * rank) % (LARGEST + 1)


def time_case(
    case: Case, settings: CallSettings, collective: Collective, *, runtime: Runtime, enter: Enter
) -> dict[str, Any]:
    """Fields of `RankCalls` that are measured; every rank calls it, and all make the same calls."""
    pattern = Pattern(rank=runtime.rank, world_size=runtime.world_size)
    tolerance = ALLOWED_ROUNDINGS * ROUNDOFF[case.compression]
    values = np.empty(case.payload_bytes // 4, dtype=np.float32)
    wrong, largest = 0, 0.0

    def call(number: int) -> float:
        nonlocal wrong, largest
        pattern.fill(values, call=number)
        collective.fill(values)
        runtime.barrier()  # ranks start together; what the slowest then needs is what a step would wait for
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
    slowest = max(runtime.gather(last))  # how many calls follow is common, or a rank would wait for ever
    count = max(settings.least_calls, min(settings.most_calls, int(settings.budget_seconds / slowest)))
    seconds = []
    for number in range(count):
        enter("measure", step=number, steps=count)
        seconds.append(call(settings.warmup_calls + number))
    return {"call_seconds": seconds, "wrong_elements": wrong, "largest_relative_error": largest}
