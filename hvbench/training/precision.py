"""The precisions, with the dtypes that both twins use in each.

Mixed precision is explicit: parameters, their gradients, the optimizer's state, the residual stream, layer norms, the
softmax of the loss and the loss are in `parameter_dtype` (fp32 master weights); the operands of every matrix product
(linear layers, attention, logits) are cast to `compute_dtype`.

On a processor without instructions for a compute dtype, PyTorch would run scalar loops (10 to 50 times slower), and
TensorFlow would sum in low precision. There both twins *emulate* it: operands and results are rounded to the compute
dtype and stored in float32, which is the arithmetic of a native product (exact products, float32 sums, one rounding).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The dtypes of one precision, by their names in numpy and the frameworks, and whether it needs loss scaling."""

    parameter_dtype: str
    compute_dtype: str
    loss_scaling: bool


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(parameter_dtype="float32", compute_dtype="float32", loss_scaling=False),
    "bf16": Precision(parameter_dtype="float32", compute_dtype="bfloat16", loss_scaling=False),
    "fp16": Precision(parameter_dtype="float32", compute_dtype="float16", loss_scaling=True),
    # For tests only, which compare the twins' gradients with finite differences: no point can have it.
    "fp64": Precision(parameter_dtype="float64", compute_dtype="float64", loss_scaling=False),
}
