"""Learning rate at a step: linear warm-up, then constant or cosine."""

from __future__ import annotations

import math

from hvbench.spec import Point

FINAL_FRACTION = 0.1


def learning_rate_at(
    step: int, *, peak: float, schedule: str, lr_warmup_steps: int, schedule_steps: int
) -> float:
    """Learning rate of 0-based `step`.

    Warm-up reaches `peak` at step `lr_warmup_steps`. The cosine (SGDR without restarts, arXiv:1608.03983 eq. 5)
    falls from there to a tenth of the peak at `schedule_steps` and stays there.
    """
    if step < lr_warmup_steps:
        return peak * (step + 1) / (lr_warmup_steps + 1)
    if schedule == "constant":
        return peak
    decay_steps = max(1, schedule_steps - lr_warmup_steps)
    progress = min(1.0, (step - lr_warmup_steps) / decay_steps)
    return peak * (FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress)))


def point_learning_rate(point: Point, step: int) -> float:
    """Learning rate of 0-based `step` of a point's training."""
    return learning_rate_at(
        step,
        peak=point.learning_rate,
        schedule=point.schedule,
        lr_warmup_steps=point.lr_warmup_steps,
        schedule_steps=point.schedule_steps,
    )
