"""Proof that the twins do the same work: traces of a few steps, tensor by tensor, and their comparison.

A trace holds logits of the first micro-batch, gradients of the first step before any update (averaged over
accumulation and ranks, unscaled), loss and gradient norm of every step, and all parameters after the last update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvbench.frameworks.contract import Trainer
from hvbench.spec import Point
from hvbench.training.batches import Batches
from hvbench.training.loss_scale import LossScale
from hvbench.training.schedule import learning_rate_at


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far one quantity of two traces lies apart: ||a - b|| / ||b|| in the Euclidean norm."""

    name: str
    relative_error: float
    tolerance: float

    @property
    def is_within(self) -> bool:
        """False also for NaN."""
        return self.relative_error <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """Largest relative errors that count as the same work."""

    logits: float
    loss: float
    gradients: float
    updates: float


# Measured at `tiny` over 20 updates, np 1 and 2, then rounded up to the next 1, 2 or 5: see tests/parity.
TOLERANCES = {
    "fp32": Tolerances(logits=1e-5, loss=1e-5, gradients=2e-5, updates=1e-4),
    "bf16": Tolerances(logits=1e-2, loss=1e-3, gradients=2e-2, updates=1e-1),
    "fp16": Tolerances(logits=2e-3, loss=1e-4, gradients=1e-2, updates=5e-2),
}


def write_trace(path: Path, point: Point, *, trainer: Trainer, batches: Batches, steps: int) -> None:
    """Train `steps` updates and store every tensor of interest in `path` (npz)."""
    scale = LossScale(enabled=point.precision == "fp16")
    inputs, targets = batches.train_batch(0)
    arrays = {"logits": trainer.logits(inputs[0])}
    for name, value in trainer.gradients(inputs, targets, loss_scale=scale.scale).items():
        arrays[f"gradient/{name}"] = value / scale.scale
    for name, value in trainer.parameters().items():
        arrays[f"initial/{name}"] = value
    results = []
    for step in range(steps):
        rate = learning_rate_at(
            step,
            peak=point.learning_rate,
            schedule=point.schedule,
            lr_warmup_steps=point.lr_warmup_steps,
            schedule_steps=point.schedule_steps,
        )
        inputs, targets = batches.train_batch(step)
        results.append(trainer.train_step(inputs, targets, learning_rate=rate, loss_scale=scale.scale))
        scale.update(skipped=results[-1].skipped)
    arrays["loss"] = np.array([result.loss for result in results])
    arrays["gradient_norm"] = np.array([result.gradient_norm for result in results])
    arrays["skipped"] = np.array([result.skipped for result in results])
    for name, value in trainer.parameters().items():
        arrays[f"update/{name}"] = value - arrays.pop(f"initial/{name}")
    np.savez(path, **arrays)


def compare_traces(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], *, tolerances: Tolerances) -> list[Deviation]:
    """Deviation of each quantity of `a` from `b`, loss step by step; raises ValueError if they hold different ones."""
    if sorted(a) != sorted(b):
        raise ValueError(f"traces hold different quantities: {sorted(set(a) ^ set(b))}")
    deviations = []
    for name in b:
        kind = name.partition("/")[0]
        if kind in ("loss", "gradient_norm"):
            tolerance = tolerances.loss if kind == "loss" else tolerances.gradients
            for step, (left, right) in enumerate(zip(a[name], b[name], strict=True)):
                deviations.append(_deviation(f"{name}/step{step}", left, right, tolerance=tolerance))
        elif kind == "skipped":
            deviations.append(_deviation(name, a[name] != b[name], np.zeros(1), tolerance=0.0))
        else:
            tolerance = {"logits": tolerances.logits, "gradient": tolerances.gradients, "update": tolerances.updates}[kind]
            deviations.append(_deviation(name, a[name], b[name], tolerance=tolerance))
    return deviations


def _deviation(name: str, a: np.ndarray, b: np.ndarray, *, tolerance: float) -> Deviation:
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    distance, size = float(np.linalg.norm(difference)), float(np.linalg.norm(b))
    relative_error = distance / size if size else distance
    return Deviation(name=name, relative_error=relative_error, tolerance=tolerance)
