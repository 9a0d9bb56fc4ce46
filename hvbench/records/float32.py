"""Environment variables that make libraries multiply float32 in fewer bits, behind the frameworks' own switches.

fp32 means IEEE float32 in every figure of hvbench, and tf32 is a precision of its own, so such a variable is refused: a
record would name a precision that the libraries did not use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from hvbench.errors import UsageError

# Variable -> the values that leave float32 as it is, and what others do.
SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "NVIDIA_TF32_OVERRIDE": (("0",), "NVIDIA's libraries multiply float32 in TF32"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": (("0",), "PyTorch multiplies float32 in TF32"),
    "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32": (("0",), "TensorFlow multiplies float32 on tensor cores"),
    "TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32": (("0",), "TensorFlow convolves float32 on tensor cores"),
    "TF_ENABLE_CUDNN_RNN_TENSOR_OP_MATH_FP32": (
        ("0",),
        "TensorFlow's recurrent layers multiply float32 on tensor cores",
    ),
    "TF_ENABLE_AUTO_MIXED_PRECISION": (("0",), "TensorFlow turns float32 into 16 bits"),
    "TF_ENABLE_AUTO_MIXED_PRECISION_GRAPH_REWRITE": (("0",), "TensorFlow turns float32 into 16 bits"),
    "TF_SET_ONEDNN_FPMATH_MODE": ((), "TensorFlow lets oneDNN multiply float32 in 16 bits"),
    "ONEDNN_DEFAULT_FPMATH_MODE": (("STRICT",), "oneDNN may multiply float32 in fewer bits"),
    "DNNL_DEFAULT_FPMATH_MODE": (("STRICT",), "oneDNN may multiply float32 in fewer bits"),
    "MKL_BLAS_COMPUTE_MODE": (("STANDARD",), "MKL may multiply float32 in fewer bits"),
}
NO_TF32 = "NVIDIA_TF32_OVERRIDE"  # 0 switches TF32 off whatever a framework asks for


def require_ieee_float32(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError, naming the variable, where the environment changes what products of float32 are."""
    for name, (harmless, effect) in SETTINGS.items():
        value = environment.get(name, "").strip()
        if value and value.upper() not in harmless:
            allowed = "".join(f", or set it to {word}" for word in harmless)
            tf32 = '; precision = "tf32" asks for TF32' if "TF32" in effect else ""
            raise UsageError(
                f"{name}={value}: with it {effect}, and fp32 would not be float32: unset it{allowed}{tf32}"
            )


def why_tf32_is_off(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why no library here multiplies in TF32, whatever the GPU; None: nothing stands against it."""
    if environment.get(NO_TF32, "").strip() == "0":
        return f"{NO_TF32}=0 switches TF32 off in NVIDIA's libraries: unset it"
    return None
