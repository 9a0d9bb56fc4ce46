"""Gradients as products of two narrow matrices in TensorFlow: PowerSGD."""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.tensorflow.operations import start_reduction, wait
from hvbench.spec.point import Point
from hvbench.training.compression import initial_factors

_FACTORS = "factors/"


class PowerSGDAllReduce(FeedbackAllReduce):
    """Average gradients as P Q^T: one step of the power method a training step, from the Q of the step before.

    `factors` holds Q of each matrix, which all ranks have in common.
    """

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)
        with tf.device(device):
            self.factors = {name: tf.Variable(value) for name, value in initial_factors(point).items()}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to average P of one gradient, or the gradient itself where it is sent as it is."""
        if name not in self.residuals:
            self.pending[name] = (start_reduction(name, gradient, op=hvd.Average), gradient.shape, None)
            return
        matrix = tf.reshape(self.residuals[name] + gradient, [gradient.shape[0], -1])
        left = tf.matmul(matrix, self.factors[name])
        self.pending[name] = (start_reduction(f"{name}.left", left, op=hvd.Average), gradient.shape, matrix)

    def finish(self) -> dict[str, tf.Tensor]:
        """Average Q of each gradient from its P; canonical name -> P Q^T."""
        averages, seconds = {}, {}
        for name, (handle, shape, matrix) in self.pending.items():
            left = wait(handle)
            if name not in self.residuals:
                averages[name] = left
                continue
            left = orthonormalize(left)
            right = tf.matmul(matrix, left, transpose_a=True)
            seconds[name] = (start_reduction(f"{name}.right", right, op=hvd.Average), left, shape, matrix)
        for name, (handle, left, shape, matrix) in seconds.items():
            right = wait(handle)
            product = tf.matmul(left, right, transpose_b=True)
            self.residuals[name].assign(tf.reshape(matrix - product, shape))
            # A column of zeros would stay one: of a gradient that is still zero, such as that of LoRA's A.
            self.factors[name].assign(tf.where(tf.reduce_any(right != 0, 0), right, self.factors[name]))
            averages[name] = tf.reshape(product, shape)
        self.pending = {}
        return averages

    def state(self) -> Arrays:
        """`residuals/NAME`, and `factors/NAME`: the Q with which the next step begins."""
        return super().state() | {f"{_FACTORS}{name}": value.numpy() for name, value in self.factors.items()}

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        super().load_state(state)
        for name, value in self.factors.items():
            value.assign(state[f"{_FACTORS}{name}"])


def orthonormalize(matrix: tf.Tensor) -> tf.Tensor:
    """The columns of a matrix [rows, rank] by the modified Gram-Schmidt process, first to last; a column of zeros stays one."""
    columns = tf.unstack(matrix, axis=1)
    for index, column in enumerate(columns):
        norm = tf.norm(column)
        columns[index] = column = column / tf.where(norm > 0, norm, 1.0)
        for later in range(index + 1, len(columns)):
            columns[later] -= tf.tensordot(column, columns[later], 1) * column
    return tf.stack(columns, 1)
