"""L2 norms in PyTorch, exact enough to clip by: of tensors, of all of them together, and the factor that follows."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def exact_norms(values: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """L2 norms in float64: PyTorch's float32 sum of millions of values on a CPU is off by up to 1e-4.

    Of norms of rows in their dtype, where an operation in float64 would make a copy of each tensor first.
    """
    if values and values[0].device.type == "cpu":
        values = [torch.linalg.vector_norm(value, dim=-1).double() for value in values]
    return torch._foreach_norm(values, dtype=torch.float64)


def measure_norms(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """L2 norm of each of `values`, rounded to its dtype; squares of the rows' norms are summed in float64."""
    return [norm.to(value.dtype) for norm, value in zip(exact_norms(values), values, strict=True)]


def global_norm(values: list[torch.Tensor]) -> torch.Tensor:
    """L2 norm of all of `values` together, in float64.

    Its rounding error scales every clipped gradient by the same factor, and training amplifies such an error far more
    than independent rounding errors of the parameters: norms in float32 let the twins drift apart.
    """
    return torch.linalg.vector_norm(torch.stack(exact_norms(values)))


def clip_factor(gradient_norm: torch.Tensor, *, max_norm: float) -> torch.Tensor:
    """Factor, at most 1, that brings gradients of global L2 norm `gradient_norm` to at most `max_norm`; 0: no clipping."""
    return torch.clamp(max_norm / (gradient_norm + 1e-6), max=1.0) if max_norm else torch.ones_like(gradient_norm)
