"""What a step of the TensorFlow twin takes at least: its own matrix products and its own attention, bare, at the rates of here and now."""

from __future__ import annotations

import tensorflow as tf

from benchmarks import twins
from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.attention import attention
from hvbench.frameworks.tensorflow.runtime import DTYPES
from hvbench.spec.point import Point


class Floor(twins.Floor):
    """See `benchmarks.twins.Floor`."""

    framework = "tensorflow"

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        super().__init__(point, weights, threads=threads)
        dtype = DTYPES[self.dtype]
        self.qkv = [tf.cast(x, dtype) for x in tf.unstack(tf.random.normal(self.shape))]
        self.gradient = tf.cast(tf.random.normal(self.shape[1:]), dtype)
        self.graph = tf.function(self._attend, autograph=False)

    def attend(self) -> None:
        self.graph(*self.qkv, self.gradient)

    def _attend(self, q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, gradient: tf.Tensor) -> list[tf.Tensor]:
        """Graph: attention of one block, and its gradients."""
        with tf.GradientTape() as tape:
            tape.watch((q, k, v))
            heads = attention(q, k, v, point=self.point, rate=0.0, seed=None)
        return tape.gradient(heads, (q, k, v), output_gradients=gradient)
