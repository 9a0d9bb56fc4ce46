"""What a step of the TensorFlow twin takes at least: its own matrix products and its own attention, bare, at the rates of here and now."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.twins import shared_runtime
from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.attention import attention
from hvbench.frameworks.tensorflow.ceiling import prepare_product
from hvbench.frameworks.tensorflow.runtime import DTYPES
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.products import model_products


class Floor:
    """All products of a micro-batch, one after the other, then attention forward and backward for each block."""

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        self.runtime = shared_runtime("tensorflow", threads=threads, device=point.device)
        self.point = point
        self.parameters = sum(value.size for value in weights.values())
        dtype = PRECISIONS[point.precision].compute_dtype
        choices = {"dtype": dtype, "gemm": point.gemm, "device": point.device}
        self.products = [prepare_product(each, repeats=each.count, **choices) for each in model_products(point)]
        B, T, W, H = point.micro_batch_size, point.sequence_length, point.hidden_size, point.num_heads
        shape = (3, B, H, T, W // H)
        self.qkv = [tf.cast(x, DTYPES[dtype]) for x in tf.unstack(tf.random.normal(shape))]
        self.gradient = tf.cast(tf.random.normal(shape[1:]), DTYPES[dtype])
        self.attend = tf.function(self._attend, autograph=False)

    def count_parameters(self) -> int:
        return self.parameters

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        for run in self.products:
            run()
        for _ in range(self.point.num_layers):
            self.attend(*self.qkv, self.gradient)
        self.runtime.synchronize()
        return float("nan")

    def _attend(self, q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, gradient: tf.Tensor) -> list[tf.Tensor]:
        """Graph: attention of one block, and its gradients."""
        with tf.GradientTape() as tape:
            tape.watch((q, k, v))
            heads = attention(q, k, v, point=self.point, rate=0.0, seed=None)
        return tape.gradient(heads, (q, k, v), output_gradients=gradient)
