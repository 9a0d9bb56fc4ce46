"""What a step of the PyTorch twin takes at least: its own matrix products and its own attention, bare, at the rates of here and now."""

from __future__ import annotations

import torch

from benchmarks import twins
from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.attention import attention
from hvbench.frameworks.pytorch.runtime import DTYPES
from hvbench.spec.point import Point


class Floor(twins.Floor):
    """See `benchmarks.twins.Floor`."""

    framework = "pytorch"

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        super().__init__(point, weights, threads=threads)
        dtype = DTYPES[self.dtype]
        self.qkv = [x.requires_grad_() for x in torch.randn(self.shape, device=point.device).to(dtype).unbind()]
        self.gradient = torch.randn(self.shape[1:], device=point.device).to(dtype)

    def attend(self) -> None:
        heads = attention(*self.qkv, point=self.point, rate=0.0, seed=None)
        torch.autograd.grad(heads, self.qkv, self.gradient)
