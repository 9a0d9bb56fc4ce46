"""Linear layers in PyTorch, and the precisions in which a model's tensors are multiplied: what every family is made of.

Which dtype each tensor has is said in `hvbench.spec.numerics`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.runtime import DTYPES
from hvbench.records.environment import multiplies_natively
from hvbench.spec.model import FAMILIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.adaptation import is_trained
from hvbench.training.masking import SEPARATOR, has_separators, special_token
from hvbench.training.weights import constants


class Layers:
    """The parameters by canonical name (`hvbench.training.weights`), the constants, and the layers that multiply by them."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        self.point = point
        self.traits = FAMILIES[point.family]
        self.separator = special_token(SEPARATOR, point) if has_separators(point) else None
        self.parameter_dtype = DTYPES[precision.parameter_dtype]
        self.compute_dtype = DTYPES[precision.compute_dtype]
        self.is_native = multiplies_natively(precision.compute_dtype, device=device)
        self.parameters = {
            name: torch.nn.Parameter(
                torch.tensor(value, dtype=self.parameter_dtype, device=device), requires_grad=is_trained(point, name)
            )
            for name, value in weights.items()
        }
        self.trained = {name: value for name, value in self.parameters.items() if is_trained(point, name)}
        self.constants = {
            name: torch.tensor(value, dtype=self.parameter_dtype, device=device)
            for name, value in constants(point).items()
        }

    def hold(self, prefix: str, x: torch.Tensor) -> AbstractContextManager[None]:
        """Within it the parameters whose names begin so are whole, for what reads x: without shards they always are."""
        return nullcontext() if isinstance(self.parameters, dict) else self.parameters.hold(prefix, x)

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """x [..., in] -> [..., out] in the compute dtype."""
        weight, bias = self.round(self.parameters[f"{name}.weight"]), self.parameters.get(f"{name}.bias")  # [in, out]
        bias = None if bias is None else self.round(bias)
        if self.point.gemm == "onednn":
            return self.round(_OneDnnLinear.apply(self.round(x), weight, bias))
        return self.round(F.linear(self.round(x), weight.t(), bias))

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """Cast to the compute dtype; where the processor cannot multiply in it, rounded to it in the parameters' dtype."""
        rounded = x.to(self.compute_dtype)
        return rounded if self.is_native else rounded.to(self.parameter_dtype)

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """Cast to the parameters' dtype."""
        return x.to(self.parameter_dtype)


def multiply(left: torch.Tensor, right: torch.Tensor, *, transposed: str, gemm: str) -> torch.Tensor:
    """One matrix product, as linear layers and logits do it; see `hvbench.training.products.Product` for `transposed`."""
    left = left.t() if transposed == "left" else left
    right = right.t() if transposed == "right" else right
    return _multiply_in_onednn(left, right) if gemm == "onednn" else left @ right


def multiply_by_rows(x: torch.Tensor, weight: torch.Tensor, *, gemm: str) -> torch.Tensor:
    """x [..., in] × transposed weight [out, in] -> [..., out], with its gradient: the logits of an embedding."""
    return _OneDnnLinear.apply(x, weight.t(), None) if gemm == "onednn" else x @ weight.t()


def mean_of_tokens(x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """The mean [samples, W] of x [B, T, W] over positions of a row's first document, where `starts` [B, T] are 0: padding is behind it.

    Or of the documents that begin at `places` among all rows. `starts` None: all positions.
    """
    if starts is None:
        return x.mean(dim=1)
    if places is not None:
        counts = _positions_of(starts, places).to(x.dtype)
        return counts @ x.flatten(end_dim=1) / counts.sum(dim=1, keepdim=True)
    counts = (starts == 0).to(x.dtype)
    return (x * counts[:, :, None]).sum(dim=1) / counts.sum(dim=1, keepdim=True)


def last_token(x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """The last position [samples, W] of a row's first document in x [B, T, W], or of those at `places`, as `mean_of_tokens` knows them."""
    if starts is None:
        return x[:, -1]
    if places is not None:
        return x.flatten(end_dim=1)[places + _positions_of(starts, places).sum(dim=1) - 1]
    last = (starts == 0).sum(dim=1) - 1
    return x[torch.arange(len(x), device=x.device), last]


def _positions_of(starts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Which of all positions of rows [B, T] are of the documents that begin at `places` [samples] among them: [samples, B T]."""
    B, T = starts.shape
    begins = torch.arange(0, B * T, T, device=starts.device)[:, None] + starts
    return begins.flatten() == places[:, None]


class _OneDnnLinear(torch.autograd.Function):
    """x [..., in], weight [in, out], bias [out] or None -> [..., out], with oneDNN's products forward and backward.

    PyTorch multiplies fp32 matrices on a CPU with MKL, on every processor, and uses oneDNN in compiled models only.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply_in_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, d_rows = x.flatten(end_dim=-2), gradient.flatten(end_dim=-2)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        d_x = _multiply_in_onednn(gradient, weight.t()) if needs_x else None
        if not needs_weight:
            d_weight = None
        elif weight.is_contiguous():
            d_weight = _multiply_in_onednn(rows.t(), d_rows)
        else:  # the logits: their weight is the transposed embedding, whose memory order the gradient should have
            d_weight = _multiply_in_onednn(d_rows.t(), rows).t()
        return d_x, d_weight, d_rows.sum(0) if needs_bias else None


def _multiply_in_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], "")
