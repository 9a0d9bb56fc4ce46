"""Bare work in numpy for `hvbench.worker.ceiling` to time: each `prepare_*` returns a call that does it `repeats` times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.allreduce import make_allreduce
from hvbench.frameworks.numpy.layers import multiply
from hvbench.frameworks.numpy.runtime import DTYPES, Runtime, _round_to

from hvbench.training.products import Product


def prepare_product(product: Product, *, repeats: int, dtype: str, gemm: str, device: str) -> Callable[[], None]:
    """The product in `dtype`, by the function that stands for the model's."""
    left = _operand(product.rows, product.inner, is_transposed=product.transposed == "left").astype(DTYPES[dtype])
    right = _operand(product.inner, product.columns, is_transposed=product.transposed == "right").astype(DTYPES[dtype])

    def run() -> None:
        for _ in range(repeats):
            multiply(left, right, transposed=product.transposed, gemm=gemm)

    return run


def prepare_scaling(elements: int, *, repeats: int, device: str) -> Callable[[], None]:
    """float32 elements multiplied by a number in place."""
    values = np.ones(elements, np.float32)

    def run() -> None:
        for _ in range(repeats):
            np.multiply(values, np.float32(1), out=values)

    return run


def prepare_rounding(elements: int, *, repeats: int, dtype: str, device: str) -> Callable[[], None]:
    """float32 elements rounded to `dtype` and carried on in float32, as an emulated precision does."""
    values = np.ones(elements, np.float32)

    def run() -> None:
        for _ in range(repeats):
            _round_to(values, dtype)

    return run


def prepare_allreduce(elements: int, *, compression: str, runtime: Runtime) -> Callable[[], None]:
    """One all-reduce of float32 elements as gradients take it."""
    allreduce = make_allreduce(runtime.ranks, compression=compression)
    values = np.ones(elements, np.float32)

    def run() -> None:
        allreduce.start("ceiling", values)
        allreduce.finish()

    return run


def _operand(rows: int, columns: int, *, is_transposed: bool) -> np.ndarray:
    values = np.random.default_rng(0).random(rows * columns, dtype=np.float32)
    return values.reshape(columns, rows) if is_transposed else values.reshape(rows, columns)
