"""Proof that the twins do the same work: traces of a few steps, tensor by tensor, and their comparison.

A trace holds logits of the first micro-batch, gradients of the first step before any update (averaged over
accumulation and ranks, unscaled), loss and gradient norm of every step, and by how much the parameters moved in all
steps. Nothing is launched here: `hvbench.parity.run` does that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hvbench.frameworks.contract import Arrays, Trainer
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.training.batches import Batches
from hvbench.training.flops import model_facts
from hvbench.training.loss_scale import LossScale
from hvbench.training.schedule import point_learning_rate

Trace = Mapping[str, np.ndarray]

COMMON = ("gradient/", "update/", "grid/")  # names of what all ranks have in common
MAX_LOGITS = 1 << 24  # values of a trace, beyond its first sample
OFF_GRID = 1 / 25
CHUNK = 1 << 22  # elements at a time in float64


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far one quantity of two traces lies apart: ||a - b|| / ||b||, in the Euclidean norm; updates in `way`."""

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
    gradients: float  # each tensor of the first step, and the global norm of every step
    updates: float  # each tensor's, after the last step, in `way`
    update_length: float  # norm of all updates together, in which rounding errors of single elements average out
    key_bias_updates: float  # see `split_update`
    measured_updates: int = 20  # over so many; after fewer, elements with hardly a gradient have averaged out less


# Measured: worst of three seeds, `tiny` on real text over 20 updates, every rank, on an AMD EPYC without bf16 or fp16
# instructions, np 1 and 2 (compression: np 2). Allowed: at least twice that, rounded up to the next 1, 2 or 5.
#
#   precision  compression  logits   loss     gradients  updates  update_length  key_bias_updates
#   fp32       none         1.8e-7   2.0e-7   3.9e-7     4.2e-6   8.4e-8         4.3e-5
#   fp32       fp16         1.8e-7   2.0e-7   4.0e-5     3.1e-4   1.7e-7         0
#   bf16       none         4.9e-5   2.7e-5   1.5e-3     2.2e-3   1.3e-5         0.15
#   bf16       fp16         4.9e-5   2.1e-5   7.9e-4     3.7e-3   1.8e-5         0.03
#   fp16       none         1.2e-4   3.4e-6   2.3e-4     6.0e-4   3.1e-6         0.04
#   fp16       fp16         1.2e-4   3.9e-6   4.4e-4     4.6e-4   2.8e-6         0.03
#   fp32       bf16         1.7e-7   2.0e-7   8.0e-5     1.4e-4   1.7e-7         4.1e-5
#   bf16       bf16         4.9e-5   2.9e-5   1.7e-3     2.7e-3   5.7e-5         0.14
#   fp16       bf16         9.6e-5   2.5e-6   5.7e-3     1.1e-3   8.6e-6         0.02
#
# On three ranks and more these hold too, for sums have one order there (`hvbench.parity.run.launched_as`).
#
# bf16 on the wire is eight times as coarse as fp16: in a small tensor a single element that rounds to the other side is
# half a percent of its gradient.
#
# The worst fp32 updates are gains: float32 near 1 is that coarse beside 20 small steps. Where something is rounded to
# 16 bits, a last bit of float32 decides now and then to which side; in fp32 under fp16 compression there is no loss
# scale, so small gradients are subnormal on the wire, and Adam makes as much of them as of large ones. Biases of keys
# in fp32 move by rounding error / epsilon, which depends on the batch: 1.4e-4 was seen with two samples. The same holds
# of the logits in bf16, where few elements that round to the other side (2^-9 of their size) decide: on the text of
# another Python 2.4e-4 was seen, and twice that is allowed, a quarter of bf16's unit roundoff.
TOLERANCES = {
    ("fp32", "none"): Tolerances(
        logits=5e-7, loss=5e-7, gradients=1e-6, updates=1e-5, update_length=2e-7, key_bias_updates=1e-3
    ),
    ("fp32", "fp16"): Tolerances(
        logits=5e-7, loss=5e-7, gradients=1e-4, updates=1e-3, update_length=5e-7, key_bias_updates=1e-3
    ),
    ("bf16", "none"): Tolerances(
        logits=5e-4, loss=1e-4, gradients=5e-3, updates=5e-3, update_length=5e-5, key_bias_updates=0.5
    ),
    ("bf16", "fp16"): Tolerances(
        logits=5e-4, loss=1e-4, gradients=5e-3, updates=1e-2, update_length=5e-5, key_bias_updates=0.5
    ),
    ("fp16", "none"): Tolerances(
        logits=5e-4, loss=1e-5, gradients=5e-4, updates=2e-3, update_length=1e-5, key_bias_updates=0.1
    ),
    ("fp16", "fp16"): Tolerances(
        logits=5e-4, loss=1e-5, gradients=1e-3, updates=2e-3, update_length=1e-5, key_bias_updates=0.1
    ),
    ("fp32", "bf16"): Tolerances(
        logits=5e-7, loss=5e-7, gradients=2e-4, updates=5e-4, update_length=5e-7, key_bias_updates=1e-3
    ),
    ("bf16", "bf16"): Tolerances(
        logits=5e-4, loss=1e-4, gradients=5e-3, updates=1e-2, update_length=2e-4, key_bias_updates=0.5
    ),
    ("fp16", "bf16"): Tolerances(
        logits=5e-4, loss=1e-5, gradients=2e-2, updates=5e-3, update_length=2e-5, key_bias_updates=0.1
    ),
}

# A processor with products in 16 bits runs each framework's own kernels, which round elsewhere (after the softmax,
# before and after a bias). Measured with those kernels on the same EPYC, np 1, where TensorFlow also sums in bf16:
#
#   bf16       none         5.1e-3   4.6e-4   1.4e-2     1.5e-2   6.1e-4         0.25
#   fp16       none         3.3e-4   3.6e-6   3.0e-4     7.6e-4   5.0e-6         0.06
NATIVE_TOLERANCES = {
    "bf16": Tolerances(logits=2e-2, loss=1e-3, gradients=5e-2, updates=5e-2, update_length=2e-3, key_bias_updates=0.5),
    "fp16": Tolerances(logits=1e-3, loss=1e-5, gradients=2e-3, updates=2e-3, update_length=1e-5, key_bias_updates=0.2),
}

# In a larger model more rounding errors meet: in 16 bits nearly every value of the last layers is rounded to another
# side than in the other framework, so logits differ by the unit roundoff of the dtype and more. Measured: worst of
# three seeds, `small` with 64 tokens on real text over 3 updates, four samples (np 1) or two times four (compression:
# np 2), emulated; without compression also with one sample, at np 2 with 256 tokens, and with warm-ups of 0, 5, 50 and
# 500 steps, of which 0 is the worst. `gpt2` with 64 tokens, one seed, lies within 1.3 times these. Allowed: as above.
#
#   precision  compression  logits   loss     gradients  updates  update_length  key_bias_updates
#   fp32       none         7.5e-7   2.3e-7   1.1e-6     4.2e-5   1.8e-7         4.5e-4
#   fp32       fp16         7.4e-7   1.2e-7   9.1e-5     5.3e-5   9.6e-8         0
#   fp32       bf16         7.4e-7   1.2e-7   2.2e-4     4.0e-5   2.3e-7         3.7e-4
#   bf16       none         5.6e-3   8.0e-5   6.3e-3     1.6e-2   9.8e-5         0.62
#   bf16       fp16         4.8e-3   2.4e-5   5.5e-3     9.0e-3   1.1e-5         0.57
#   bf16       bf16         4.8e-3   2.0e-5   6.6e-3     1.1e-2   5.3e-5         0.58
#   fp16       none         6.9e-4   8.6e-6   8.0e-4     3.6e-3   7.8e-6         0.26
#   fp16       fp16         6.8e-4   3.7e-6   8.4e-4     2.5e-3   3.8e-6         0.21
#   fp16       bf16         6.8e-4   3.3e-6   2.2e-3     2.3e-3   4.0e-6         0.20
#
# The worst fp32 update is SGD's, whose first steps are small beside the last bit of a parameter.
LARGE_PARAMETERS = 1_000_000
LARGE_UPDATES = 3
_large = partial(Tolerances, measured_updates=LARGE_UPDATES)
LARGE_TOLERANCES = {
    ("fp32", "none"): _large(
        logits=2e-6, loss=5e-7, gradients=5e-6, updates=1e-4, update_length=5e-7, key_bias_updates=1e-3
    ),
    ("fp32", "fp16"): _large(
        logits=2e-6, loss=5e-7, gradients=2e-4, updates=5e-4, update_length=5e-7, key_bias_updates=1e-3
    ),
    ("fp32", "bf16"): _large(
        logits=2e-6, loss=5e-7, gradients=5e-4, updates=5e-4, update_length=1e-6, key_bias_updates=1e-3
    ),
    ("bf16", "none"): _large(
        logits=1e-2, loss=1e-4, gradients=2e-2, updates=5e-2, update_length=2e-4, key_bias_updates=2.0
    ),
    ("bf16", "fp16"): _large(
        logits=1e-2, loss=1e-4, gradients=2e-2, updates=5e-2, update_length=2e-4, key_bias_updates=2.0
    ),
    ("bf16", "bf16"): _large(
        logits=1e-2, loss=1e-4, gradients=2e-2, updates=5e-2, update_length=2e-4, key_bias_updates=2.0
    ),
    ("fp16", "none"): _large(
        logits=2e-3, loss=1e-5, gradients=2e-3, updates=1e-2, update_length=1e-5, key_bias_updates=0.5
    ),
    ("fp16", "fp16"): _large(
        logits=2e-3, loss=1e-5, gradients=2e-3, updates=1e-2, update_length=1e-5, key_bias_updates=0.5
    ),
    ("fp16", "bf16"): _large(
        logits=2e-3, loss=1e-5, gradients=5e-3, updates=1e-2, update_length=1e-5, key_bias_updates=0.5
    ),
}

# What these two move is mostly vectors, 0.3 % of the elements of `small`: 62 % of the squared length of Adafactor's
# update, 99 % of LARS's (AdamW's: 0.3 %). Errors of so few elements average out less where something is rounded to 16
# bits; in fp32 nothing of it is left. Worst of three seeds: `small` 3.6e-4 in bf16 and 2.5e-5 in fp16; `tiny` 8.2e-5 in
# bf16, 2.5e-5 in fp16, and with bf16 on the wire 6.6e-5 in fp16 and 2.7e-6 in fp32.
VECTOR_OPTIMIZERS = ("adafactor", "lars")
VECTOR_LENGTH = {"none": 5.0, "fp16": 5.0, "bf16": 10.0}  # by compression: times the update_length of the others


def is_large_model(point: Point) -> bool:
    """Whether `point` is so much larger than `tiny` that rounding errors pile up in it."""
    return model_facts(point).parameters > LARGE_PARAMETERS


def tolerances_for(point: Point, *, is_native: bool) -> Tolerances:
    """What `point` is held to; `is_native`: its device has products in the compute dtype."""
    table = LARGE_TOLERANCES if is_large_model(point) else TOLERANCES
    tolerances = table[point.precision, point.compression]
    if point.optimizer in VECTOR_OPTIMIZERS and (point.precision, point.compression) != ("fp32", "none"):
        tolerances = replace(tolerances, update_length=VECTOR_LENGTH[point.compression] * tolerances.update_length)
    if is_native and point.precision in NATIVE_TOLERANCES:
        native = NATIVE_TOLERANCES[point.precision]
        if not is_large_model(point) and point.compression != "bf16":
            return native
        wider = {name: max(value, getattr(native, name)) for name, value in vars(tolerances).items()}
        return Tolerances(**wider | {"measured_updates": tolerances.measured_updates})
    return tolerances


def trace_name(point: Point, draw: int | None) -> str:
    """What the files of a trace are called, before the rank; `draw`: see `hvbench.parity.run.run_traces`."""
    return point.point_id if draw is None else f"{point.point_id}-draw{draw}"


def write_trace(
    path: Path | None, point: Point, *, trainer: Trainer, batches: Batches, steps: int, is_first: bool
) -> dict[str, str]:
    """Train `steps` updates and store the trace in `path` (npz, unless None); digests of gradients and parameters.

    These two are common to all ranks, which the digests show: only the first rank's trace holds them.
    """
    arrays = record_trace(point, trainer=trainer, batches=batches, steps=steps)
    gradients = {name: value for name, value in arrays.items() if name.startswith("gradient/")}
    digests = {"gradients": digest(gradients), "parameters": digest(trainer.parameters())}
    if path is not None:
        own = {name: value for name, value in arrays.items() if is_first or not name.startswith(COMMON)}
        np.savez(path, **own)
    return digests


def record_trace(point: Point, *, trainer: Trainer, batches: Batches, steps: int) -> Arrays:
    """Train `steps` updates; name -> array, as the head of this module says.

    fp16 gradients are taken at the first loss scale that does not overflow, as training itself would take them.
    """
    inputs, targets = batches.train_batch(0)
    samples = max(1, MAX_LOGITS // (point.sequence_length * point.vocab_size))
    arrays = {"logits": trainer.logits(inputs[0])[:samples]}
    scale, overflows = LossScale(enabled=point.precision == "fp16"), 0
    gradients = trainer.gradients(inputs, targets, loss_scale=scale.scale)
    while scale.enabled and scale.scale > 1.0 and not all(np.isfinite(value).all() for value in gradients.values()):
        scale.update(skipped=True)
        overflows += 1
        gradients = trainer.gradients(inputs, targets, loss_scale=scale.scale)
    arrays["overflows"] = np.array(overflows)
    arrays |= {f"gradient/{name}": value / scale.scale for name, value in gradients.items()}

    before = trainer.parameters()
    scale, results = LossScale(enabled=point.precision == "fp16"), []
    for step in range(steps):
        rate = point_learning_rate(point, step)
        inputs, targets = batches.train_batch(step)
        results.append(trainer.train_step(inputs, targets, learning_rate=rate, loss_scale=scale.scale))
        scale.update(skipped=results[-1].skipped)
    arrays["loss"] = np.array([result.loss for result in results])
    arrays["gradient_norm"] = np.array([result.gradient_norm for result in results])
    arrays["skipped"] = np.array([result.skipped for result in results])
    arrays |= {f"grid/{name}": np.array(way(np.spacing(np.abs(value)))) for name, value in before.items()}
    return arrays | {f"update/{name}": value - before[name] for name, value in trainer.parameters().items()}


def compare_traces(a: Trace, b: Trace, *, tolerances: Tolerances) -> list[Deviation]:
    """Deviation of each quantity of `a` from `b`, scalars step by step; raises ValueError if they hold others."""
    if sorted(a) != sorted(b):
        raise ValueError(f"traces hold different quantities: {sorted(set(a) ^ set(b))}")
    deviations = []

    def note(name: str, error: float, tolerance: float) -> None:
        deviations.append(Deviation(name=name, relative_error=error, tolerance=tolerance))

    note("logits", relative_error(a["logits"], b["logits"]), tolerances.logits)
    for name in ("overflows", "skipped"):  # they agree or they do not
        note(name, float(np.count_nonzero(a[name] != b[name])), 0.0)
    for step, (left, right) in enumerate(zip(a["loss"], b["loss"], strict=True)):
        note(f"loss/step{step}", relative_error(left, right), tolerances.loss)
    for step, (left, right) in enumerate(zip(a["gradient_norm"], b["gradient_norm"], strict=True)):
        # An overflow's norm may be infinite or NaN: either way the step is skipped, and `skipped` is compared.
        both_overflow = not (np.isfinite(left) or np.isfinite(right))
        note(f"gradient_norm/step{step}", 0.0 if both_overflow else relative_error(left, right), tolerances.gradients)
    for name in (name for name in b if name.startswith("gradient/")):
        note(name, relative_error(a[name], b[name]), tolerances.gradients)

    squares = np.zeros(2)
    fewer = max(1.0, tolerances.measured_updates / len(b["loss"]))
    for name in (name for name in b if name.startswith("update/")):
        (left, left_key), (right, right_key) = (split_update(name, trace[name]) for trace in (a, b))
        coarseness = grid_error(b, name) if right.any() else 0.0
        note(name, relative_error(left, right, norm=way), max(tolerances.updates * fewer, coarseness))
        squares += [length(left) ** 2, length(right) ** 2]
        if right_key is not None:
            error = length(np.float64(left_key) - right_key) / (length(b[name]) or 1.0)
            note(f"{name}:key", error, tolerances.key_bias_updates)
    if squares.any():
        note("update_length", relative_error(*np.sqrt(squares)), tolerances.update_length)
    return deviations


def grid_error(trace: Trace, name: str) -> float:
    """What storing the parameters alone may make of an update's relative error, after few and small steps.

    A gain near 1 moves by 1e-4 in a first warm-up step, and float32 is 1.2e-7 coarse there: where the twins round one
    element to different sides, no arithmetic is wrong. Allowed is one element in 25 that does so in each step.
    """
    grid = trace.get(name.replace("update/", "grid/", 1))
    return len(trace["loss"]) * OFF_GRID * float(grid) / way(trace[name]) if grid is not None else 0.0


def split_update(name: str, value: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """An update without the biases of the attention's keys, and those biases if it has any.

    A key's bias adds one constant to a whole row of attention scores, to which the softmax is blind: its gradient is
    zero but for rounding errors. Adam divides these by their own size, so the update of such a bias is noise, in any
    framework, and moves no logit. It is compared by its distance relative to the whole update of its tensor.
    """
    if not name.endswith(".attention.qkv.bias"):
        return value, None
    query, key, head_value = np.split(value, 3)
    return np.concatenate([query, head_value]), key


def relative_error(a: np.ndarray, b: np.ndarray, *, norm: Callable[[np.ndarray], float] | None = None) -> float:
    """||a - b|| / ||b|| in float64, by default in the Euclidean norm; the distance itself where `b` is zero."""
    norm = norm or length
    right = _rows(b)
    left = np.reshape(a, right.shape)
    distances = [norm(np.subtract(left[piece], right[piece], dtype=np.float64)) for piece in _pieces(right)]
    distance, size = length(np.array(distances)), norm(right)
    return distance / size if size else distance


def length(value: np.ndarray) -> float:
    """Euclidean norm in float64."""
    flat = np.ravel(value)
    pieces = (np.asarray(flat[i : i + CHUNK], dtype=np.float64) for i in range(0, flat.size, CHUNK))
    return math.sqrt(sum(float(piece @ piece) for piece in pieces))


def way(value: np.ndarray) -> float:
    """How far a tensor went: the sum of absolute values of each row (its last dimension), and the length of these sums.

    Adam moves an element by the same whether its gradient is large or small, and its first step has that gradient's
    sign alone. Where a gradient is zero but for rounding errors, as of one element in a thousand in bf16, either sign
    is right. The Euclidean norm makes much of so few elements: 0.7 % of a gain's update, where a single one of its 32
    went the other way in the first of 20 steps. Here each counts by its share of the way, while whatever is wrong
    throughout, or in a whole row, counts as in the Euclidean norm.
    """
    rows = _rows(value)
    return length(np.array([length(np.abs(rows[piece]).sum(axis=-1, dtype=np.float64)) for piece in _pieces(rows)]))


def _rows(value: np.ndarray) -> np.ndarray:
    """(rows, elements of the last dimension); a number is one row of one."""
    shape = np.shape(value)
    return np.reshape(value, (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1))


def _pieces(rows: np.ndarray) -> list[slice]:
    """Slices of the first dimension with about CHUNK elements each, at least a row."""
    step = max(1, CHUNK * len(rows) // max(1, rows.size))
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def worst(deviations: Iterable[Deviation]) -> Deviation:
    """The one that uses up most of its tolerance; NaN is worse than anything."""

    def usage(deviation: Deviation) -> float:
        if deviation.is_within:
            return deviation.relative_error / deviation.tolerance if deviation.tolerance else 0.0
        if not deviation.tolerance or np.isnan(deviation.relative_error):
            return float("inf")
        return deviation.relative_error / deviation.tolerance

    return max(deviations, key=usage)


def kind_of(deviation: Deviation) -> str:
    """What a deviation is of: `logits`, `loss`, `gradient`, `gradient_norm`, `update`, `update_length`, `key_bias`, …

    Names may begin with the rank or the framework that they are of.
    """
    if deviation.name.endswith(":key"):
        return "key_bias"
    first, _, rest = deviation.name.partition("/")
    is_prefix = first in FRAMEWORKS or (first.startswith("rank") and first[4:].isdecimal())
    return rest.partition("/")[0] if is_prefix else first


def worst_by_kind(deviations: Iterable[Deviation]) -> dict[str, Deviation]:
    """Kind -> the deviation of that kind that uses up most of its tolerance."""
    kinds: dict[str, list[Deviation]] = {}
    for deviation in deviations:
        kinds.setdefault(kind_of(deviation), []).append(deviation)
    return {kind: worst(same) for kind, same in kinds.items()}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and bits: equal on all ranks when they hold identical parameters."""
    total = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        total.update(f"{name} {value.shape} {value.dtype}\n".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()
