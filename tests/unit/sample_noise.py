"""Records of a training whose gradient noise is known: real classes, norms of gradients of a quadratic.

The quadratic: one sample's loss is (w - x)' H (w - x) / 2 with x ~ N(0, diag(s^2)), so its gradient is H (w - x): the true
gradient is H w, and the covariance of one sample's gradient is H diag(s^2) H.
"""

from __future__ import annotations

import numpy as np

from hvbench.records.record import GradientNoise, Record
from tests.unit.sample_records import make_evaluation, make_rank, make_record

BATCHES = (16, 32, 64, 128, 256)
CURVATURES = np.linspace(0.5, 2.0, 12)
SPREADS = np.linspace(1.0, 3.0, 12)
WEIGHTS = np.full(12, 0.4)
SIGNAL = float(np.sum((CURVATURES * WEIGHTS) ** 2))
NOISE = float(np.sum((CURVATURES * SPREADS) ** 2))
TRUTH = NOISE / SIGNAL


def look_at_quadratic(step: int, *, ranks: int, accumulation: int, micro_batch: int, random) -> list[GradientNoise]:
    """One look of every rank at the quadratic, from samples that it draws."""
    samples = random.standard_normal((ranks, accumulation, micro_batch, WEIGHTS.size)) * SPREADS
    micro = (CURVATURES * (WEIGHTS - samples)).mean(axis=2)  # (ranks, accumulation, weights)
    averaged = float(np.linalg.norm(micro.mean(axis=(0, 1))))
    norms = np.linalg.norm(micro, axis=-1).tolist()
    return [GradientNoise(step=step, micro_gradient_norms=each, gradient_norm=averaged, seconds=0.1) for each in norms]


def quadratic_record(
    *, ranks: int = 1, accumulation: int = 1, micro_batch: int = 4, looks: int = 40, seed: int = 0, **changes
) -> Record:
    random = np.random.default_rng(seed)
    shape = {"ranks": ranks, "accumulation": accumulation, "micro_batch": micro_batch, "random": random}
    seen = [look_at_quadratic(step, **shape) for step in range(looks)]
    samples = [
        make_rank(rank, step_seconds=[1.0] * 3, gradient_noise=[look[rank] for look in seen]) for rank in range(ranks)
    ]
    return make_record(
        samples, micro_batch_size=micro_batch, gradient_accumulation_steps=accumulation, world_size=ranks, **changes
    )


def batch_record(batch: int, steps: int | None, *, framework: str = "pytorch", repeat: int = 0) -> Record:
    """A launch that reaches the target after `steps`, or never in 400, and looks at its gradients on the way."""
    seen = quadratic_record(accumulation=batch // 4, looks=10, seed=repeat).ranks[0].gradient_noise
    marks = [(0, 5.0), (400, 4.0)] if steps is None else [(0, 5.0), (steps, 3.0)]
    evaluations = [make_evaluation(mark, loss) for mark, loss in marks]
    rank = make_rank(step_seconds=[1.0] * (steps or 400), evaluations=evaluations, gradient_noise=seen)
    return make_record(
        [rank],
        repeat=repeat,
        target_loss=3.0,
        framework=framework,
        micro_batch_size=4,
        gradient_accumulation_steps=batch // 4,
    )
