"""Learning rate, accumulation steps and sequence length of each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from hvbench.spec.point import Point
from hvbench.spec.schedule import LENGTH_STAGES

FINAL_FRACTION = 0.1

# Schedule -> learning rate after the warm-up, as a fraction of the peak; arguments: 0-based step, warmup_steps, end.
FRACTIONS: dict[str, Callable[[int, int, int], float]] = {
    "constant": lambda step, warmup_steps, end: 1.0,
    "cosine": lambda step, warmup_steps, end: _fall(0.5 * (1 + math.cos(math.pi * _progress(step, warmup_steps, end)))),
    "linear": lambda step, warmup_steps, end: _fall(1 - _progress(step, warmup_steps, end)),
    "plateau": lambda step, warmup_steps, end: (
        1.0
    ),  # times what evaluations have made of it: `hvbench.training.stopping.Plateau`
    "inverse_sqrt": lambda step, warmup_steps, end: math.sqrt((warmup_steps + 1) / (step + 1)),
}


def learning_rate_at(step: int, *, peak: float, schedule: str, lr_warmup_steps: int, schedule_steps: int) -> float:
    """Learning rate of 0-based `step`, before it is scaled with the batch.

    A linear warm-up reaches `peak` at step `lr_warmup_steps`. From there, cosine (SGDR without restarts, Loshchilov &
    Hutter, arXiv:1608.03983, eq. 5) and linear fall to a tenth of the peak at `schedule_steps` and stay there; the inverse
    square root (Vaswani et al., arXiv:1706.03762, eq. 3, with steps and warm-up counted from 1) falls without end.
    """
    if step < lr_warmup_steps:
        return peak * (step + 1) / (lr_warmup_steps + 1)
    return peak * FRACTIONS[schedule](step, lr_warmup_steps, schedule_steps)


def learning_rate_factor(global_batch_size: int, *, reference_batch_size: int, lr_scaling: str) -> float:
    """Factor on the learning rate for a global batch of k times the reference batch.

    k (linear: Goyal et al., arXiv:1706.02677, section 2.1), the square root of k (sqrt: Krizhevsky, arXiv:1404.5997,
    section 5; You et al., arXiv:1904.00962, section 4), or 1 (none).
    """
    k = global_batch_size / reference_batch_size
    return {"none": 1.0, "linear": k, "sqrt": math.sqrt(k)}[lr_scaling]


def point_learning_rate(point: Point, step: int) -> float:
    """Learning rate of 0-based `step` of a point whose `world_size` is known, scaled with the global batch of that step."""
    rate = learning_rate_at(
        step,
        peak=point.learning_rate,
        schedule=point.schedule,
        lr_warmup_steps=point.lr_warmup_steps,
        schedule_steps=point.schedule_steps,
    )
    global_batch_size = accumulation_steps_at(point, step) * point.micro_batch_size * (point.world_size or 1)
    return rate * learning_rate_factor(
        global_batch_size, reference_batch_size=point.reference_batch_size, lr_scaling=point.lr_scaling
    )


def accumulation_steps_at(point: Point, step: int) -> int:
    """Backward passes of 0-based `step`: rising linearly, rounded up, over `batch_warmup_steps`, then constant.

    The batch grows by the number of its micro-batches (Smith et al., arXiv:1711.00489, grow it during training), which
    keep their shape: no graph is traced again, and a pass always costs the same.
    """
    if step >= point.batch_warmup_steps:
        return point.gradient_accumulation_steps
    return -(-point.gradient_accumulation_steps * (step + 1) // (point.batch_warmup_steps + 1))


def passes_before(point: Point, step: int) -> int:
    """Number of backward passes of one rank in all steps before 0-based `step`."""
    warming = min(step, point.batch_warmup_steps)
    most, rises = point.gradient_accumulation_steps, point.batch_warmup_steps + 1
    # Steps have a pass number k (from 0) from step k * rises / most on: count the warm-up steps from there, for every k.
    passes = sum(max(0, warming - k * rises // most) for k in range(most)) if warming else 0
    return passes + (step - warming) * most


def samples_before(point: Point, step: int) -> int:
    """Number of training samples of all ranks in all steps before 0-based `step`."""
    return passes_before(point, step) * point.micro_batch_size * (point.world_size or 1)


def sequence_length_at(point: Point, step: int) -> int:
    """Tokens of a sample of 0-based `step`: one, two, then three quarters of sequence_length (rounded up), each for a third of
    `length_warmup_steps`, then all of it.

    A sample that is shorter is the beginning of the one that the step would have at full length (Li et al.,
    arXiv:2108.06084, section 3), so neither the order of samples nor that of the text depends on the warm-up.
    """
    return _stage_length(point, _stage_at(point, step))


def _stage_at(point: Point, step: int) -> int:
    if step >= point.length_warmup_steps:
        return LENGTH_STAGES - 1
    return (LENGTH_STAGES - 1) * step // point.length_warmup_steps


def _stage_length(point: Point, stage: int) -> int:
    return -(-point.sequence_length * (stage + 1) // LENGTH_STAGES)


def tokens_before(point: Point, step: int) -> int:
    """Number of training tokens of all ranks in all steps before 0-based `step`, padding included."""
    last = _stage_at(point, step)
    # Stage k begins at the first step with (stages - 1) * step // warm-up steps = k.
    begins = [-(-point.length_warmup_steps * stage // (LENGTH_STAGES - 1)) for stage in range(last + 1)]
    samples = [samples_before(point, begin) for begin in [*begins, step]]
    lengths = [_stage_length(point, stage) for stage in range(last + 1)]
    return sum(length * (samples[i + 1] - samples[i]) for i, length in enumerate(lengths))


def tokens_of_step(point: Point, step: int) -> int:
    """Number of training tokens of all ranks in 0-based `step`."""
    return tokens_before(point, step + 1) - tokens_before(point, step)


def _progress(step: int, warmup_steps: int, end: int) -> float:
    """Share of the steps between warm-up and `end` that are done, at most 1."""
    return min(1.0, (step - warmup_steps) / max(1, end - warmup_steps))


def _fall(remaining: float) -> float:
    """Fraction of the peak: falls from 1 to FINAL_FRACTION as `remaining` falls from 1 to 0."""
    return FINAL_FRACTION + (1 - FINAL_FRACTION) * remaining
