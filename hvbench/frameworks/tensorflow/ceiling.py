"""The ceilings' workloads in TensorFlow: matrix products, memory passes and all-reduces alone, timed by `hvbench.worker.ceiling`.

Each `prepare_*` allocates the operands and returns a function without arguments that does the work `repeats` times.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hvbench.frameworks.tensorflow.allreduce import make_allreduce
from hvbench.frameworks.tensorflow.layers import multiply
from hvbench.frameworks.tensorflow.runtime import DTYPES, Runtime
from hvbench.training.products import Product


def prepare_product(product: Product, *, repeats: int, dtype: str, gemm: str, device: str) -> Callable[[], None]:
    """The matrix product in `dtype`, by the function that the model's layers use."""
    with _on(device):
        left = _operand(product.rows, product.inner, is_transposed=product.transposed == "left")
        right = _operand(product.inner, product.columns, is_transposed=product.transposed == "right")
        left, right = tf.cast(left, DTYPES[dtype]), tf.cast(right, DTYPES[dtype])

    def repeat(left: tf.Tensor, right: tf.Tensor) -> list[tf.Tensor]:
        results: list[tf.Tensor] = []
        for _ in range(repeats):  # in sequence and all returned: the graph optimizer can neither merge nor drop any
            with tf.control_dependencies(results[-1:]):
                results.append(multiply(left, right, transposed=product.transposed, gemm=gemm))
        return results

    return _prepare(repeat, left, right, device=device)


def prepare_scaling(elements: int, *, repeats: int, device: str) -> Callable[[], None]:
    """float32 values [elements] multiplied by a scalar in place: one read and one write of memory."""
    with _on(device):
        values, factor = tf.ones(elements), tf.ones(())

    def repeat(values: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return _loop(lambda values: values * factor, values, repeats=repeats)

    return _prepare(repeat, values, factor, device=device)


def prepare_rounding(elements: int, *, repeats: int, dtype: str, device: str) -> Callable[[], None]:
    """float32 values [elements] rounded to `dtype` and back to float32, as an emulated precision does."""
    with _on(device):
        values = tf.ones(elements)

    def repeat(values: tf.Tensor) -> tf.Tensor:
        return _loop(lambda values: tf.cast(tf.cast(values, DTYPES[dtype]), values.dtype), values, repeats=repeats)

    return _prepare(repeat, values, device=device)


def prepare_allreduce(elements: int, *, compression: str, runtime: Runtime) -> Callable[[], None]:
    """One all-reduce of float32 values [elements], sent as gradients are, compression included."""
    allreduce = make_allreduce(runtime.ranks, compression=compression)
    with _on(runtime.device):
        values = tf.ones(elements)

    def repeat(values: tf.Tensor) -> tf.Tensor:
        allreduce.start("ceiling", values)
        return allreduce.finish()["ceiling"]

    return _prepare(repeat, values, device=runtime.device)


def _prepare(work: Callable[..., object], *arguments: tf.Tensor, device: str) -> Callable[[], None]:
    """A function that runs `work(*arguments)` as one graph on the device."""
    graph = tf.function(work, autograph=False)

    def run() -> None:
        with _on(device):
            graph(*arguments)

    return run


def _loop(work: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor, *, repeats: int) -> tf.Tensor:
    """`work` applied `repeats` times in a loop, because the graph optimizer would merge a chain of multiplications into one.

    From the second iteration on TensorFlow can work in place: nothing else refers to the last iteration's result.
    """
    _, values = tf.while_loop(
        lambda count, _: count < repeats, lambda count, values: (count + 1, work(values)), (0, values)
    )
    return values


def _on(device: str) -> tf.device:
    return tf.device("GPU:0" if device == "cuda" else "CPU:0")


def _operand(rows: int, columns: int, *, is_transposed: bool) -> tf.Tensor:
    """A random matrix: a GPU multiplies equal numbers faster than real data. Few are drawn, and repeated, to save time."""
    numbers = tf.random.uniform([min(2**16, rows * columns)])
    values = tf.tile(numbers, [-(-rows * columns // len(numbers))])[: rows * columns]
    return tf.reshape(values, (columns, rows) if is_transposed else (rows, columns))
