"""In which numbers products are computed, and what computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Knob, Part, Site


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Mixed precision, the same in every framework. Dtypes have the names of numpy and the frameworks: `bfloat16`.

    Parameters, their gradients, the optimizer's state, the residual stream, layer norms, the softmax of the loss and the
    loss itself are in `parameter_dtype`; the operands of every matrix product (linear layers, attention, logits) are
    cast to `compute_dtype`.

    A processor without instructions for a compute dtype falls back to scalar loops in PyTorch (10 to 50 times slower) and
    to low-precision sums in TensorFlow. There both frameworks *emulate*: operands and products are rounded to the compute
    dtype and carried in float32, which is the arithmetic of a native product (exact products, float32 sums, one rounding).

    `uses_tf32`: tensor cores read float32 operands as TF32 (8 bits of exponent, 10 of significand) and sum in float32. It is a
    precision of its own: everywhere else both frameworks' float32 is IEEE float32, on every device.
    """

    parameter_dtype: str = "float32"
    compute_dtype: str = "float32"
    loss_scaling: bool = False  # dynamic: small gradients would be lost otherwise
    uses_tf32: bool = False  # NVIDIA GPUs of TF32_CAPABILITY and later

    @property
    def product_dtype(self) -> str:
        """What a device multiplies in that can: the compute dtype, or TF32."""
        return TF32 if self.uses_tf32 else self.compute_dtype

    @property
    def is_lower(self) -> bool:
        """Whether products are computed in fewer bits than parameters have."""
        return self.compute_dtype != self.parameter_dtype


TF32 = "tf32"  # beside the dtypes: float32 operands, rounded by the device
TF32_CAPABILITY = 8  # major number of CUDA's compute capability: Ampere

PRECISIONS = {
    "fp32": Precision(),
    "tf32": Precision(uses_tf32=True),
    "bf16": Precision(compute_dtype="bfloat16"),
    "fp16": Precision(compute_dtype="float16", loss_scaling=True),
}


# What `gemm` may name -> the library that PyTorch then multiplies fp32 matrices with on a CPU.
GEMM_LIBRARIES = {"default": "MKL", "onednn": "oneDNN"}


def _tf32_on_a_cpu(point: AnyPoint) -> str | None:
    if PRECISIONS[point.precision].uses_tf32 and point.device == "cpu":
        return f"precision {point.precision} is a mode of NVIDIA's GPUs, and device is cpu"
    return None


def _no_tf32(point: AnyPoint, site: Site) -> str | None:
    if not PRECISIONS[point.precision].uses_tf32:
        return None
    no_cuda = site.no_cuda(point.framework)
    return site.no_tf32 or (f"precision {point.precision}: {no_cuda}" if no_cuda else None)


def has_gemm_choice(point: AnyPoint) -> bool:
    """Whether libraries differ in the point's products: in PyTorch's of fp32 on a CPU."""
    precision = PRECISIONS[point.precision]
    has_other_products = precision.is_lower or precision.uses_tf32
    return point.framework == "pytorch" and not has_other_products and point.device != "cuda"


def _no_fp32_products_of_pytorch(point: AnyPoint) -> str | None:
    if point.gemm == "onednn" and not has_gemm_choice(point):
        return f"gemm {point.gemm} is a choice of PyTorch's fp32 products on a CPU"
    return None


def _no_cuda(point: AnyPoint, site: Site) -> str | None:
    return site.no_cuda(point.framework) if point.device == "cuda" else None


class NumericsPart(Part):
    """Number formats of products."""

    title = "Numerics"

    precision: Annotated[
        Literal[*PRECISIONS], Knob(in_words="{}".format, column=4, impossible=_tf32_on_a_cpu, unavailable=_no_tf32)
    ] = Field("fp32", description="of matrix products; weights stay fp32; tf32: of NVIDIA's GPUs from Ampere on")


class DevicePart(Part):
    """What computes: a library of products, a device."""

    title = "Device"

    gemm: Annotated[
        Literal["auto", *GEMM_LIBRARIES],
        Knob(
            elsewhere=(("onednn", "auto"),),
            impossible=_no_fp32_products_of_pytorch,
            unnamed=lambda point: point.gemm == "default" or (point.gemm == "auto" and not has_gemm_choice(point)),
        ),
    ] = Field(
        "auto",
        description="library of PyTorch's fp32 products on a CPU; default: MKL; auto: which is faster with the point's shapes",
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], Knob(is_of_launch=True, unavailable=_no_cuda)] = Field(
        "auto", description="auto: cuda where the framework sees one"
    )
