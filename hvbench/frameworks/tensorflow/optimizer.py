"""AdamW in TensorFlow: decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101, alg. 2), epsilon outside the root."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.spec import Point
from hvbench.training.weights import is_decayed


class Optimizer:
    """Updates parameters in place from averaged gradients.

    TensorFlow's fused Adam kernel adds epsilon to sqrt(v), the paper to sqrt(v / (1 - beta2^t)). Both are one formula
    once epsilon is multiplied by sqrt(1 - beta2^t), so the kernel is given that product and the bias-corrected rate.
    """

    def __init__(self, parameters: dict[str, tf.Variable], point: Point) -> None:
        self.parameters = parameters
        self.point = point
        self.first_moments = {name: tf.Variable(tf.zeros_like(value)) for name, value in parameters.items()}
        self.second_moments = {name: tf.Variable(tf.zeros_like(value)) for name, value in parameters.items()}
        self.updates = tf.Variable(0, dtype=tf.int64)

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        """One step; `gradients` by canonical name, final (averaged, unscaled, clipped)."""
        count = tf.cast(self.updates.assign_add(1), tf.float64)
        correction1 = 1 - tf.constant(self.point.beta1, tf.float64) ** count
        correction2 = tf.sqrt(1 - tf.constant(self.point.beta2, tf.float64) ** count)
        rate = tf.cast(learning_rate, tf.float64)
        for name, gradient in gradients.items():
            value = self.parameters[name]
            if is_decayed(name) and self.point.weight_decay:
                value.assign(value * tf.cast(1 - rate * self.point.weight_decay, value.dtype))
            tf.raw_ops.ResourceApplyAdam(
                var=value.handle,
                m=self.first_moments[name].handle,
                v=self.second_moments[name].handle,
                beta1_power=tf.zeros((), value.dtype),  # its own bias correction switched off
                beta2_power=tf.zeros((), value.dtype),
                lr=tf.cast(rate * correction2 / correction1, value.dtype),
                beta1=tf.constant(self.point.beta1, value.dtype),
                beta2=tf.constant(self.point.beta2, value.dtype),
                epsilon=tf.cast(self.point.epsilon * correction2, value.dtype),
                grad=gradient,
            )

    def state(self) -> Arrays:
        """Moments by canonical name, and `updates`, how many they have seen."""
        state: Arrays = {"updates": np.array(self.updates.numpy())}
        for name in self.parameters:
            state[f"first_moments/{name}"] = self.first_moments[name].numpy()
            state[f"second_moments/{name}"] = self.second_moments[name].numpy()
        return state

    def load_state(self, state: Arrays) -> None:
        """Go on from a `state`. Raises KeyError where it lacks something."""
        self.updates.assign(state["updates"])
        for name in self.parameters:
            self.first_moments[name].assign(state[f"first_moments/{name}"])
            self.second_moments[name].assign(state[f"second_moments/{name}"])
