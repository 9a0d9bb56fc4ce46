"""Two traces -> how far each of their quantities lies apart, and how much of that is allowed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hvbench.parity.norms import l2_norm, l2_norm_of_row_l1_norms, relative_error
from hvbench.parity.tolerances import Tolerances
from hvbench.parity.trace import Trace
from hvbench.registry import FRAMEWORKS

OFF_GRID = 1 / 25  # of the elements, in each step
# Of a tolerance of gradients, for a sum's terms in the sum's place: of 1e-6 in fp32 two roundings, 2^-23.
OFF_TERMS = 1 / 8


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """The relative error of one quantity of two traces, ||a - b|| / ||b||, beside what is allowed."""

    name: str
    relative_error: float
    tolerance: float

    @property
    def is_within(self) -> bool:
        """False also for NaN."""
        return self.relative_error <= self.tolerance


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
        allowed = tolerances.gradients * max(1.0, OFF_TERMS * cancellation(b, name))
        note(name, relative_error(a[name], b[name]), max(allowed, wire_error(b, name)))

    squares = np.zeros(2)
    fewer = max(1.0, tolerances.measured_updates / len(b["loss"]))
    for name in (name for name in b if name.startswith("update/")):
        (left, left_key), (right, right_key) = (split_update(name, trace[name]) for trace in (a, b))
        coarseness = grid_error(b, name) if right.any() else 0.0
        note(
            name, relative_error(left, right, norm=l2_norm_of_row_l1_norms), max(tolerances.updates * fewer, coarseness)
        )
        squares += [l2_norm(left) ** 2, l2_norm(right) ** 2]
        if right_key is not None:
            error = l2_norm(np.float64(left_key) - right_key) / (l2_norm(b[name]) or 1.0)
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
    return (
        len(trace["loss"]) * OFF_GRID * float(grid) / l2_norm_of_row_l1_norms(trace[name]) if grid is not None else 0.0
    )


def cancellation(trace: Trace, name: str) -> float:
    """How much longer the terms are that a gradient is the sum of than the sum, where its trace says that; else 0.

    A sum's rounding errors are as large as its terms make them (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2:
    the error is bounded relative to Σ |x|, not to |Σ x|). Of a batch with as many samples of either class the gradient of a classifier's bias
    is a hundredth of its terms, and one bit of these 5e-6 of it. What is wrong in an implementation is wrong in the terms.
    """
    terms = float(trace.get(name.replace("gradient/", "terms/", 1), 0.0))
    size = l2_norm(trace[name])
    return terms / size if size and np.isfinite(terms) else 0.0  # in fp16 a half may overflow where the whole does not


def wire_error(trace: Trace, name: str) -> float:
    """The relative error of a gradient of which one element is rounded to the other side wherever the wire rounds it.

    Two implementations that agree to 1e-7 now and then round to different sides of a boundary between two numbers of
    the wire's format, and then differ by a whole step of it: 2^-8 to 2^-7 of the element in bf16. Among the 32 elements
    of a gain, one such element is up to half a percent of the norm; among thousands it is nothing, and what many
    elements make of it is part of the tolerance of all gradients (see `tolerances.toml`).
    """
    error = float(trace.get(f"wire/{name.removeprefix('gradient/')}", 0.0))
    return error / l2_norm(trace[name]) if error else 0.0


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
