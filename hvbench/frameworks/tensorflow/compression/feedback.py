"""Error feedback in TensorFlow: what a rank did not send of its gradients is added to its next ones."""

from __future__ import annotations

import abc

import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point
from hvbench.training.compression import feedback_shapes

_RESIDUALS = "residuals/"


class FeedbackAllReduce(abc.ABC):
    """Average gradients of which each rank sends less than it has; the residuals, which it has yet to send, are its own state.

    They are variables, which a graph reads and assigns.
    """

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        self.point = point
        self.rank, self.world_size = rank, point.world_size
        with tf.device(device):
            self.residuals = {name: tf.Variable(tf.zeros(shape)) for name, shape in feedback_shapes(point).items()}
        self.pending: dict[str, tuple] = {}

    @abc.abstractmethod
    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to send one gradient with what was left of it before."""

    @abc.abstractmethod
    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> average of what was sent."""

    def state(self) -> Arrays:
        """`residuals/NAME` -> what this rank has yet to send of a gradient."""
        return {f"{_RESIDUALS}{name}": value.numpy() for name, value in self.residuals.items()}

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        for name, value in self.residuals.items():
            value.assign(state[f"{_RESIDUALS}{name}"])
