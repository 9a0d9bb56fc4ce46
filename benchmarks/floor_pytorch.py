"""What a step of the PyTorch twin takes at least: its own matrix products and its own attention, bare, at the rates of here and now."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.twins import shared_runtime
from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.attention import attention
from hvbench.frameworks.pytorch.ceiling import prepare_product
from hvbench.frameworks.pytorch.runtime import DTYPES
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.products import model_products


class Floor:
    """All products of a micro-batch, one after the other, then attention forward and backward for each block."""

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        self.runtime = shared_runtime("pytorch", threads=threads, device=point.device)
        self.point = point
        self.parameters = sum(value.size for value in weights.values())
        dtype = PRECISIONS[point.precision].compute_dtype
        choices = {"dtype": dtype, "gemm": point.gemm, "device": point.device}
        self.products = [prepare_product(each, repeats=each.count, **choices) for each in model_products(point)]
        B, T, W, H = point.micro_batch_size, point.sequence_length, point.hidden_size, point.num_heads
        shape = (3, B, H, T, W // H)
        self.qkv = [x.requires_grad_() for x in torch.randn(shape, device=point.device).to(DTYPES[dtype]).unbind()]
        self.gradient = torch.randn(shape[1:], device=point.device).to(DTYPES[dtype])

    def count_parameters(self) -> int:
        return self.parameters

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        for run in self.products:
            run()
        for _ in range(self.point.num_layers):
            heads = attention(*self.qkv, point=self.point, rate=0.0, seed=None)
            torch.autograd.grad(heads, self.qkv, self.gradient)
        self.runtime.synchronize()
        return float("nan")
