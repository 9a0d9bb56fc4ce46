"""Two launches of one round -> ln of their ratio: step by step where the metric is a rate or a step time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvbench.analysis.frame.elapsed import mean_by_round
from hvbench.analysis.frame.metrics import PACE, RATE, STEP
from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.analysis.frame.wall import span_of
from hvbench.analysis.stats.ratios import log_shift, log_shift_of_pairs
from hvbench.records.record import Record

BY_STEPS = (RATE, PACE, STEP)
RATES = (RATE, PACE)


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTimes:
    """(timed steps,) of a launch, or (rounds,): seconds of the slowest rank's steps; of RATE, seconds a token of all ranks."""

    seconds: np.ndarray
    record: Record


def time_steps(samples: LaunchSamples, metric: str) -> StepTimes:
    """The timed steps of a launch, as `metric` (one of BY_STEPS) takes them; the means of rounds where they are of two kinds."""
    seconds = samples.amortized
    if metric == RATE:
        tokens = samples.step_tokens[samples.record.warmup_steps :]
        seconds = seconds / (
            tokens if samples.steps_of_round == 1 else mean_by_round(tokens, steps=samples.steps_of_round)
        )
    return StepTimes(seconds=seconds, record=samples.record)


def log_ratio_of_steps(metric: str, one: StepTimes, other: StepTimes) -> float:
    """ln(one / other) of a rate or a step time (Hodges and Lehmann's estimate).

    Where the launches took turns with each other, the steps that followed each other are compared: what slowed the machine down
    for seconds slowed down both. Elsewhere every step of one is compared with all of the other.
    """
    took_turns = one.seconds.size == other.seconds.size and ran_side_by_side(one.record, other.record)
    shift = (log_shift_of_pairs if took_turns else log_shift)(other.seconds, one.seconds)
    return -shift if metric in RATES else shift


def ran_side_by_side(one: Record, other: Record) -> bool:
    """Whether two launches in turns ran during the same time, for half of the shorter one at least, waits for turns included."""
    if not (one.in_turns and other.in_turns):
        return False
    spans = [span for record in (one, other) if (span := span_of(record))]
    if len(spans) < 2:
        return False
    (begun_a, ended_a), (begun_b, ended_b) = spans
    shared = min(ended_a, ended_b) - max(begun_a, begun_b)
    return shared > min(ended_a - begun_a, ended_b - begun_b) / 2
