"""The trace of a short training: what two implementations of the same training are compared by.

A trace holds, as float arrays by name: logits of the first micro-batch, gradients of the first step before any update
(averaged over accumulation and ranks, without the loss scale), loss and gradient norm of every step, and by how much
each parameter changed over all steps. A worker records it; `hvbench.parity.run` launches the workers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvbench.frameworks.contract import Arrays, Input, Trainer
from hvbench.frameworks.update import common_parameters, train_update
from hvbench.parity.norms import l2_norm, l2_norm_of_row_l1_norms, wire_spacing
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.batches import Batches
from hvbench.training.compression import STEP
from hvbench.training.layout import Batch
from hvbench.training.loss_scale import LossScale
from hvbench.training.schedule import point_learning_rate

Trace = Mapping[str, np.ndarray]

COMMON = ("gradient/", "update/", "grid/", "wire/", "terms/")  # prefixes of what all ranks hold in common
MAX_LOGITS = 1 << 24  # values of a trace, beyond its first sample


def trace_name(point: Point, draw: int | None) -> str:
    """What the files of a trace are called, before the rank; `draw`: see `hvbench.parity.run.run_traces`."""
    return point.point_id if draw is None else f"{point.point_id}-draw{draw}"


def write_trace(
    path: Path | None,
    point: Point,
    *,
    trainer: Trainer,
    batches: Batches,
    steps: int,
    is_first: bool,
    reader: Input | None = None,
) -> dict[str, str]:
    """Train `steps` updates and store the trace in `path` (npz, unless None); digests of gradients and parameters.

    These two are common to all ranks, which the digests show: only the first rank's trace holds them.
    """
    arrays = record_trace(point, trainer=trainer, batches=batches, steps=steps, reader=reader)
    gradients = {name: value for name, value in arrays.items() if name.startswith("gradient/")}
    digests = {"gradients": digest(gradients), "parameters": digest(common_parameters(trainer, point, steps))}
    if path is not None:
        own = {name: value for name, value in arrays.items() if is_first or not name.startswith(COMMON)}
        np.savez(path, **own)
    return digests


def record_trace(
    point: Point, *, trainer: Trainer, batches: Batches, steps: int, reader: Input | None = None
) -> Arrays:
    """Train `steps` updates; name -> array, as the head of this module says, and measures of coarseness.

    `grid/NAME` is the norm of the steps between neighbouring float32 numbers at a parameter's initial values,
    `wire/NAME` what rounding on the wire may make of a gradient's largest element, and `terms/NAME`, where samples have labels, how long
    the terms are that a gradient is the sum of: see `hvbench.parity.compare`.

    `reader` hands the steps their batches; None: `batches`, of which the first gradients are taken in any case.

    fp16 gradients are taken at the first loss scale that does not overflow, as training itself would take them.
    """
    inputs, targets, *layouts = first = batches.train_batch(0)
    samples = max(1, MAX_LOGITS // (point.sequence_length * point.vocab_size))
    arrays = {
        "logits": trainer.logits(inputs[0], *(part for layout in layouts for part in layout.of_pass(0)))[:samples]
    }
    scale, overflows = LossScale(enabled=PRECISIONS[point.precision].loss_scaling), 0
    gradients = trainer.gradients(*first, loss_scale=scale.scale)
    while scale.enabled and scale.scale > 1.0 and not all(np.isfinite(value).all() for value in gradients.values()):
        scale.update(skipped=True)
        overflows += 1
        gradients = trainer.gradients(*first, loss_scale=scale.scale)
    arrays["overflows"] = np.array(overflows)
    arrays |= {f"gradient/{name}": value / scale.scale for name, value in gradients.items()}

    arrays |= {f"wire/{name}": wire_rounding(point, value, scale=scale.scale) for name, value in gradients.items()}
    if point.labels_samples:
        arrays |= term_norms(trainer, first, loss_scale=scale.scale)

    before = trainer.parameters()
    scale, results = LossScale(enabled=PRECISIONS[point.precision].loss_scaling), []
    for step in range(steps):
        rate = point_learning_rate(point, step)
        batch = (reader or batches).train_batch(step)
        results.append(train_update(trainer, point, step, batch, learning_rate=rate, loss_scale=scale.scale))
        scale.update(skipped=results[-1].skipped)
    arrays["loss"] = np.array([result.loss for result in results])
    arrays["gradient_norm"] = np.array([result.gradient_norm for result in results])
    arrays["skipped"] = np.array([result.skipped for result in results])
    arrays |= {
        f"grid/{name}": np.array(l2_norm_of_row_l1_norms(np.spacing(np.abs(value)))) for name, value in before.items()
    }
    after = common_parameters(trainer, point, steps)
    return arrays | {f"update/{name}": value - before[name] for name, value in after.items()}


def term_norms(trainer: Trainer, batch: Batch, *, loss_scale: float) -> Arrays:
    """`terms/NAME` -> how long two terms are whose sum is this rank's gradient of a parameter in the first pass of a step with labels of samples.

    The samples are divided by their labels into low and high ones, as evenly as goes: then these are what cancels between two classes, or
    on both sides of a mean number. (n₁ ‖g₁‖ + n₂ ‖g₂‖) / (n₁ + n₂) of the halves' mean gradients is at least the norm of all samples'
    gradient. Nothing where all labels are equal.
    """
    inputs, targets, *layouts = batch
    inputs, targets = inputs[:1], targets[:1]
    labels = targets[0]
    bounds = np.unique(labels)[1:]
    if not bounds.size:
        return {}
    is_high = labels >= min(bounds, key=lambda bound: abs((labels >= bound).mean() - 0.5))
    norms: dict[str, float] = {}
    for half in (np.flatnonzero(~is_high), np.flatnonzero(is_high)):
        chosen = np.resize(half, len(labels))  # over and over, for a batch keeps its shape
        own = [layout.part(slice(1)).select(chosen) for layout in layouts]
        rows = slice(None) if own and own[0].places is not None else chosen  # what shares rows stays there
        found = trainer.gradients(
            inputs[:, rows], targets[:, chosen], *own, loss_scale=loss_scale, with_allreduce=False
        )
        for name, value in found.items():
            norms[name] = norms.get(name, 0.0) + len(half) / len(labels) * l2_norm(value) / loss_scale
    return {f"terms/{name}": np.array(norm) for name, norm in norms.items()}


def wire_rounding(point: Point, gradient: np.ndarray, *, scale: float) -> np.ndarray:
    """By how much a gradient's largest element may differ where every rounding on the wire goes the other way.

    `scale` is the loss scale that `gradient` still contains, and the result does not; 0 where fp32 is sent. A value is
    rounded to `compression` on its rank. bf16 is summed in fp32 and rounded once more (`Bf16AllReduce`); fp16 is summed
    by a ring, which rounds each of the `world_size` - 1 partial sums. int8 is summed in fp32, too; its steps are shares of the largest. With topk and products in 16 bits each rank
    may send another one of two elements that are about as large: the smallest that is sent goes, and comes elsewhere.
    """
    world_size = point.world_size or 1
    wire = COMPRESSIONS[point.compression].wire
    sent = float(np.abs(gradient).max()) / point.gradient_predivide
    if point.compression == "int8":
        return np.array(2 * STEP * sent / scale)
    if point.compression == "topk" and PRECISIONS[point.precision].is_lower:
        least = float(np.abs(gradient[gradient != 0]).min(initial=np.inf))
        return np.array(math.sqrt(2 * world_size) * least / scale if math.isfinite(least) else 0.0)
    if not wire.is_compressed or world_size == 1:
        return np.array(0.0)
    roundings = world_size if wire.is_summed_by_horovod else 2
    step = wire_spacing(sent, compression=point.compression)
    return np.array(roundings * step * point.gradient_predivide / scale)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and bits: equal on all ranks when they hold identical parameters."""
    total = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        total.update(f"{name} {value.shape} {value.dtype}\n".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()
