"""Linear layers in TensorFlow, and the precisions in which a model's tensors are multiplied: what every family is made of.

Which dtype each tensor has is said in `hvbench.spec.numerics`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.execution import _with_gradient
from hvbench.frameworks.tensorflow.runtime import DTYPES
from hvbench.records.environment import multiplies_natively
from hvbench.spec.model import FAMILIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.adaptation import is_trained
from hvbench.training.masking import SEPARATOR, has_separators, special_token
from hvbench.training.weights import constants

_MOST_ROWS_AT_ONCE = 256  # added one after the other: two operations less to trace for each sum


class Layers:
    """The parameters by canonical name (`hvbench.training.weights`), the constants, and the layers that multiply by them."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        self.point = point
        self.traits = FAMILIES[point.family]
        self.separator = special_token(SEPARATOR, point) if has_separators(point) else None
        self.parameter_dtype = DTYPES[precision.parameter_dtype]
        self.compute_dtype = DTYPES[precision.compute_dtype]
        self.is_native = multiplies_natively(precision.compute_dtype, device=device)
        with tf.device("GPU:0" if device == "cuda" else "CPU:0"):
            self.parameters = {
                name: tf.Variable(
                    value,
                    dtype=self.parameter_dtype,
                    name=name.replace(".", "_"),
                    trainable=is_trained(point, name),
                )
                for name, value in weights.items()
            }
            self.trained = {name: value for name, value in self.parameters.items() if is_trained(point, name)}
            self.constants = {
                name: tf.constant(value, dtype=self.parameter_dtype) for name, value in constants(point).items()
            }

    def hold(self, prefix: str, x: tf.Tensor) -> AbstractContextManager[None]:
        """Within it the parameters whose names begin so are whole, for what reads x: without shards they always are."""
        return nullcontext() if isinstance(self.parameters, dict) else self.parameters.hold(prefix, x)

    def linear(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """x [B, T, in] -> [B, T, out] in the compute dtype."""
        B, T, _ = x.shape
        x, weight = _rows(self.round(x)), self.round(self.parameters[f"{name}.weight"])  # [in, out]
        if f"{name}.bias" in self.parameters:
            bias = self.widen(self.round(self.parameters[f"{name}.bias"]))
            y = _with_gradient(self._affine)(x, weight, bias)
        else:
            y = _with_gradient(self._product)(x, weight)
        return tf.reshape(y, (B, T, y.shape[-1]))

    def round(self, x: tf.Tensor) -> tf.Tensor:
        """Cast to the compute dtype; where the processor cannot multiply in it, rounded to it in the parameters' dtype."""
        rounded = tf.cast(x, self.compute_dtype)
        return rounded if self.is_native else tf.cast(rounded, self.parameter_dtype)

    def widen(self, x: tf.Tensor) -> tf.Tensor:
        """Cast to the parameters' dtype."""
        return tf.cast(x, self.parameter_dtype)

    def _affine(self, x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor):
        """x [N, in] × weight [in, out] + bias [out], and its gradient.

        The bias is added, and its gradient summed, in the parameters' dtype, for the same reason as GELU.
        """

        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dy = self.round(dy)
            d_bias = _sum_rows(self.widen(dy))
            return tf.matmul(dy, weight, transpose_b=True), _product_over_rows(x, dy), d_bias

        return self.round(tf.nn.bias_add(self.widen(tf.matmul(x, weight)), bias)), backward

    def _product(self, x: tf.Tensor, weight: tf.Tensor):
        """x [N, in] × weight [in, out], and its gradient."""

        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dy = self.round(dy)
            return tf.matmul(dy, weight, transpose_b=True), _product_over_rows(x, dy)

        return self.round(tf.matmul(x, weight)), backward


def multiply(left: tf.Tensor, right: tf.Tensor, *, transposed: str, gemm: str) -> tf.Tensor:
    """One matrix product, as linear layers and logits do it; see `hvbench.training.products.Product` for `transposed`.

    `gemm` is for PyTorch: TensorFlow has one library for each product.
    """
    if transposed == "left":
        return _product_over_rows(left, right)
    return tf.matmul(left, right, transpose_b=transposed == "right")


def multiply_by_rows(x: tf.Tensor, weight: tf.Tensor, *, gemm: str) -> tf.Tensor:
    """x [..., in] × transposed weight [out, in] -> [..., out], with its gradient: the logits of an embedding."""
    product = _multiply_by_rows(_rows(x), weight)
    return tf.reshape(product, (*x.shape[:-1], product.shape[-1]))


def mean_of_tokens(x: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None) -> tf.Tensor:
    """The mean [samples, 1, W] of x [B, T, W] over positions of a row's first document, where `starts` [B, T] are 0: padding is behind it.

    Or of the documents that begin at `places` among all rows. `starts` None: all positions.
    """
    if starts is None:
        return tf.reduce_mean(x, axis=1, keepdims=True)
    if places is not None:
        counts = tf.cast(_positions_of(starts, places), x.dtype)
        return (tf.matmul(counts, _rows(x)) / tf.reduce_sum(counts, axis=1, keepdims=True))[:, None]
    counts = tf.cast(starts == 0, x.dtype)[:, :, None]
    return tf.reduce_sum(x * counts, axis=1, keepdims=True) / tf.reduce_sum(counts, axis=1, keepdims=True)


def last_token(x: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None) -> tf.Tensor:
    """The last position [samples, 1, W] of a row's first document in x [B, T, W], or of those at `places`, as `mean_of_tokens` knows them."""
    if starts is None:
        return x[:, -1:]
    if places is not None:
        counts = tf.reduce_sum(tf.cast(_positions_of(starts, places), tf.int32), axis=1)
        return tf.gather(_rows(x), places + counts - 1)[:, None]
    last = tf.reduce_sum(tf.cast(starts == 0, tf.int32), axis=1, keepdims=True) - 1
    return tf.gather(x, last, batch_dims=1)


def _positions_of(starts: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Which of all positions of rows [B, T] are of the documents that begin at `places` [samples] among them: [samples, B T]."""
    B, T = starts.shape
    return tf.reshape(tf.range(0, B * T, T)[:, None] + starts, (-1,)) == places[:, None]


def _sum_rows(x: tf.Tensor) -> tf.Tensor:
    """The sum over all but the last dimension: [..., W] -> [W], of rows and then of their sums, √N of N at a time.

    TensorFlow adds one row after the other. Rounding errors of that grow with √N: 1.4e-6 of the sum after 8,192 rows, where
    those of PyTorch, which adds sums of sums, are 8e-8.
    """
    x = _rows(x)
    rows = x.shape[0]
    if rows <= _MOST_ROWS_AT_ONCE:
        return tf.raw_ops.BiasAddGrad(out_backprop=x)
    size = math.isqrt(rows)
    even = rows - rows % size
    sums = tf.reduce_sum(tf.reshape(x[:even], (-1, size, x.shape[1])), axis=1)
    if even < rows:
        sums = tf.concat([sums, x[even:]], axis=0)
    return tf.raw_ops.BiasAddGrad(out_backprop=sums)


def _rows(x: tf.Tensor) -> tf.Tensor:
    """[B, T, W] -> [B · T, W]."""
    return tf.reshape(x, (-1, x.shape[-1]))


@_with_gradient
def _multiply_by_rows(x: tf.Tensor, weight: tf.Tensor):
    """x [N, in] × transposed weight [out, in]; two-dimensional, as all products, which oneDNN runs faster than batched ones."""

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.matmul(dy, weight), _product_over_rows(dy, x)

    return tf.matmul(x, weight, transpose_b=True), backward


def _product_over_rows(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Transposed a [N, p] × b [N, q].

    Eigen reads columns here. Where the row length is a large power of two, the values of a column map to few cache sets,
    which halves the speed; such rows are padded first.
    """
    padded_a, padded_b = _pad_rows(a), _pad_rows(b)
    product = tf.matmul(padded_a, padded_b, transpose_a=True)
    is_padded = padded_a is not a or padded_b is not b
    return product[: a.shape[1], : b.shape[1]] if is_padded else product


def _pad_rows(x: tf.Tensor) -> tf.Tensor:
    """Matrix x with one cache line of zeros after each row where rows have 4096 · 2^n bytes; else x.

    In 16 bits oneDNN does not profit from it.
    """
    row_bytes = x.shape[1] * x.dtype.size
    maps_to_few_sets = row_bytes >= 4096 and row_bytes & (row_bytes - 1) == 0 and x.dtype.size >= 4
    return tf.pad(x, ((0, 0), (0, 64 // x.dtype.size))) if maps_to_few_sets else x
