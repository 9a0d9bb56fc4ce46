"""L2 norms in TensorFlow, exact enough to clip by: of tensors, of all of them together, and the factor that follows."""

from __future__ import annotations

import tensorflow as tf


def exact_norms(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """L2 norms in float64 of norms of rows in their dtype, summed as a tree: no tensor is copied to float64."""
    last, axes = tf.constant(-1), {0: tf.constant([], tf.int32), 1: tf.constant([0])}  # the same for all values
    rows = [tf.math.reduce_euclidean_norm(value, axis=last) for value in values]
    return [tf.math.reduce_euclidean_norm(tf.cast(norms, tf.float64), axis=axes[norms.shape.rank]) for norms in rows]


def measure_norms(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """L2 norm of each of `values`, rounded to its dtype; squares of the rows' norms are summed in float64."""
    return [tf.cast(norm, value.dtype) for norm, value in zip(exact_norms(values), values, strict=True)]


def global_norm(values: list[tf.Tensor]) -> tf.Tensor:
    """L2 norm of all of `values` together, in float64.

    Its rounding error scales every clipped gradient by the same factor, and training amplifies such an error far more
    than independent rounding errors of the parameters: norms in float32 let the twins drift apart.
    """
    return tf.math.reduce_euclidean_norm(tf.stack(exact_norms(values)))


def clip_factor(gradient_norm: tf.Tensor, *, max_norm: float) -> tf.Tensor:
    """Factor, at most 1, that brings gradients of global L2 norm `gradient_norm` to at most `max_norm`; 0: no clipping."""
    return tf.minimum(max_norm / (gradient_norm + 1e-6), 1.0) if max_norm else tf.ones_like(gradient_norm)
