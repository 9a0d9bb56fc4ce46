"""The ceilings' workloads in PyTorch: matrix products, memory passes and all-reduces alone, timed by `hvbench.worker.ceiling`.

Each `prepare_*` allocates the operands and returns a function without arguments that does the work `repeats` times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hvbench.frameworks.pytorch.allreduce import make_allreduce
from hvbench.frameworks.pytorch.layers import multiply
from hvbench.frameworks.pytorch.runtime import DTYPES, Runtime
from hvbench.training.products import Product


def prepare_product(product: Product, *, repeats: int, dtype: str, gemm: str, device: str) -> Callable[[], None]:
    """The matrix product in `dtype`, by the function that the model's layers use."""
    left = _operand(product.rows, product.inner, is_transposed=product.transposed == "left", device=device)
    right = _operand(product.inner, product.columns, is_transposed=product.transposed == "right", device=device)
    left, right = left.to(DTYPES[dtype]), right.to(DTYPES[dtype])

    def run() -> None:
        with torch.no_grad():
            for _ in range(repeats):
                multiply(left, right, transposed=product.transposed, gemm=gemm)

    return run


def prepare_scaling(elements: int, *, repeats: int, device: str) -> Callable[[], None]:
    """float32 values [elements] multiplied by a scalar in place: one read and one write of memory."""
    values, factor = torch.ones(elements, device=device), torch.ones((), device=device)

    def run() -> None:
        for _ in range(repeats):
            values.mul_(factor)

    return run


def prepare_rounding(elements: int, *, repeats: int, dtype: str, device: str) -> Callable[[], None]:
    """float32 values [elements] rounded to `dtype` and back to float32, as an emulated precision does."""
    values = torch.ones(elements, device=device)

    def run() -> None:
        for _ in range(repeats):
            values.to(DTYPES[dtype]).to(values.dtype)

    return run


def prepare_allreduce(elements: int, *, compression: str, runtime: Runtime) -> Callable[[], None]:
    """One all-reduce of float32 values [elements], sent as gradients are, compression included."""
    allreduce = make_allreduce(runtime.ranks, compression=compression)
    values = torch.ones(elements, device=runtime.device)

    def run() -> None:
        allreduce.start("ceiling", values)
        allreduce.finish()

    return run


def _operand(rows: int, columns: int, *, is_transposed: bool, device: str) -> torch.Tensor:
    """A random matrix: a GPU multiplies equal numbers faster than real data. Few are drawn, and repeated, to save time."""
    numbers = torch.rand(min(2**16, rows * columns), device=device)
    values = numbers.repeat(-(-rows * columns // len(numbers)))[: rows * columns]
    return values.view(columns, rows) if is_transposed else values.view(rows, columns)
