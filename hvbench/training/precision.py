"""Precision names and what they mean, in both twins alike.

Mixed precision here is explicit: parameters, their gradients, the optimizer's state, the residual stream, layer
norms, the softmax of the loss and the loss itself are in `parameter_dtype`; the operands of every matrix product
(linear layers, attention, logits) are cast to `compute_dtype`.

A processor without instructions for a compute dtype falls back to scalar loops in PyTorch (10 to 50 times slower) and
to low-precision sums in TensorFlow. There both twins *emulate*: operands and products are rounded to the compute dtype
and carried in float32, which is the arithmetic of a native product (exact products, float32 sums, one rounding).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Dtype names are numpy's and the frameworks' own: `float32`, `bfloat16`, `float16`, `float64`."""

    parameter_dtype: str
    compute_dtype: str
    loss_scaling: bool


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(parameter_dtype="float32", compute_dtype="float32", loss_scaling=False),
    "bf16": Precision(parameter_dtype="float32", compute_dtype="bfloat16", loss_scaling=False),
    "fp16": Precision(parameter_dtype="float32", compute_dtype="float16", loss_scaling=True),
    # Not an axis of the sweep: the twins' gradients are checked against finite differences in it.
    "fp64": Precision(parameter_dtype="float64", compute_dtype="float64", loss_scaling=False),
}
