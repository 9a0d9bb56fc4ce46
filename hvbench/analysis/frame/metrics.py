"""What of a launch is compared: its figures, which way is better, and on which of them a verdict rests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvbench.analysis.frame.elapsed import steps_of_round
from hvbench.analysis.frame.quantiles import P95, samples_needed
from hvbench.records.record import Record


@dataclass(frozen=True)
class Metric:
    """One figure of a launch that is compared: column or part, how to show it, and which way is better."""

    name: str
    title: str
    unit: str = "ms"
    scale: float = 1e3  # from the stored unit to the shown one
    is_lower_better: bool = True
    is_decisive: bool = False  # a verdict rests on it; the others are only shown
    is_timing: bool = True  # a busy machine moves it
    resolution: float = 1e-6  # in the stored unit: a difference that is smaller is none; a microsecond for times
    least_change: float = 0.0  # in the stored unit: what is smaller counts for nothing, whatever share it is
    needs: str = ""  # what a launch must have for it


HUGE_PAGE_BYTES = float(2**21)  # what the kernel may give or not give at once, whatever the program asked for
STEP = "step_seconds_median"
RATE = "tokens_per_second"
PACE = "steps_per_second"  # what speeds are compared by where nobody says how many tokens a step has
LEAST_MEMORY_BYTES = 4 * HUGE_PAGE_BYTES  # 3 % of a small process are less than the pages that a launch may get or not
MEMORY = {
    "is_decisive": True,
    "is_timing": False,
    "resolution": HUGE_PAGE_BYTES,
    "least_change": LEAST_MEMORY_BYTES,
}
METRICS = (
    Metric(STEP, "step median", is_decisive=True),
    Metric("peak_rss_bytes", "peak memory", "MiB", 2**-20, **MEMORY),
    Metric("peak_device_memory_bytes", "peak device memory", "MiB", 2**-20, **MEMORY),
    Metric("tokens_per_second", "tokens/s", "1/s", 1.0, is_lower_better=False, needs="the tokens of its steps"),
    Metric("step_seconds_p95", "step p95", needs=f"{samples_needed(P95)} timed steps"),
    Metric("forward_seconds", "forward pass"),
    Metric("backward_only_seconds", "backward pass"),
    Metric("update_seconds", "update"),
    Metric("exposed_communication_seconds", "exposed communication"),
    Metric("allreduce_seconds", "all-reduce alone"),
    Metric("data_seconds_median", "wait for data"),
    Metric("first_step_seconds", "first step", "s", 1.0),
    Metric("build_seconds", "model building", "s", 1.0),
)
PARTS = ("forward_seconds", "backward_only_seconds", "update_seconds", "exposed_communication_seconds")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How the speed of a run's points is told and compared: by tokens a second, or else by the time of a step."""

    metric: str  # of contrasts: a ratio above 1 is faster
    column: str  # what of a point is shown
    unit: str
    scale: float  # from the column's unit to it
    quantity: str  # what of two points is divided
    title: str  # heads a list of it

    def rank(self, row: Mapping[str, Any]) -> float:
        """What is the larger, the faster a row of a summary is; -inf where it was not measured."""
        value = row[self.column]
        if value is None or value != value:
            return -math.inf
        return float(value) if self.column == RATE else -float(value)


TOKENS = Speed(metric=RATE, column=RATE, unit="tokens/s", scale=1.0, quantity="tokens/s", title="tokens/s, all ranks")
STEPS = Speed(metric=PACE, column=STEP, unit="ms a step", scale=1e3, quantity="steps/s", title="step median (ms)")


def measure_parts(record: Record) -> dict[str, float]:
    """Seconds of a step's parts from its ablation: medians over the rounds of the slowest rank; empty without one."""
    if any(rank.ablation is None for rank in record.ranks) or not record.ranks:
        return {}

    def median(name: str) -> float:
        rounds = [getattr(rank.ablation, name) for rank in record.ranks]
        length = min(map(len, rounds))
        return float(np.median(np.max([values[:length] for values in rounds], axis=0))) if length else float("nan")

    forward, backward, local, step = map(
        median, ("forward_seconds", "backward_seconds", "local_step_seconds", "step_seconds")
    )
    return {
        "forward_seconds": forward,
        "backward_only_seconds": backward - forward,
        "update_seconds": local - backward,
        "exposed_communication_seconds": (step - local) / steps_of_round(record.point),
        "allreduce_seconds": median("allreduce_seconds"),
    }
