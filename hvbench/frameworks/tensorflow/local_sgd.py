"""Local SGD in TensorFlow: the average of the ranks' parameters, and an outer step on it.

The formulas and their papers are in `hvbench.training.local_sgd`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.ranks import Ranks
from hvbench.frameworks.tensorflow.allreduce import make_allreduce
from hvbench.frameworks.tensorflow.optimizer import Optimizer
from hvbench.spec.point import Point
from hvbench.training.local_sgd import COMMON, OWN, VELOCITY, averages_moments, sends_differences


class ParameterAverage:
    """Makes one model of those that the ranks have after a round of local updates; `common` and `velocity` are its state."""

    def __init__(self, point: Point, optimizer: Optimizer, ranks: Ranks) -> None:
        self.point = point
        self.optimizer = optimizer
        self.values = optimizer.parameters
        self.differences = make_allreduce(ranks, compression=point.compression)
        self.whole = make_allreduce(ranks, compression="none")
        self.common: dict[str, tf.Variable] = {}  # parameters after the last average
        self.velocity: dict[str, tf.Variable] = {}  # of the outer step
        if sends_differences(point):
            self.common = {name: tf.Variable(value) for name, value in self.values.items()}
        if point.has_outer_step:
            self.velocity = {name: tf.Variable(tf.zeros_like(value)) for name, value in self.values.items()}

    def apply(self) -> None:
        """Graph: exchange parameters, or differences, and moments, and let all ranks continue from the same ones."""
        if self.common:
            self._move_common()
        else:
            for name, average in self._average(self.values).items():
                self.values[name].assign(average)
        if averages_moments(self.point):
            slots = self._slots()
            for name, average in self._average(slots).items():
                slots[name].assign(average)
        if self.point.sync_moments == "reset":
            self.optimizer.reset()

    def mean(self) -> dict[str, tf.Tensor]:
        """Graph: canonical name -> mean over the ranks of what trains; no state changes."""
        return self._average(self.values)

    def state(self) -> Arrays:
        """`outer/common/NAME` and `outer/velocity/NAME`, where there are any."""
        state = {f"{COMMON}{name}": value for name, value in self.common.items()}
        state |= {f"{VELOCITY}{name}": value for name, value in self.velocity.items()}
        return {name: value.numpy() for name, value in state.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`, after the parameters; what is missing is as at the beginning of rounds."""
        for name, value in self.common.items():
            kept = state.get(f"{COMMON}{name}")
            value.assign(self.values[name] if kept is None else kept)
        for name, value in self.velocity.items():
            value.assign(state.get(f"{VELOCITY}{name}", tf.zeros_like(value)))

    def own_state(self) -> Arrays:
        """`moments/…`: the optimizer's state, where each rank keeps its own."""
        kept = self.optimizer.state() if self.point.keeps_moments else {}
        return {f"{OWN}{name}": value.copy() for name, value in kept.items()}

    def load_own_state(self, state: Arrays) -> None:
        """Continue from an `own_state`."""
        if self.point.keeps_moments:
            self.optimizer.load_state({name.removeprefix(OWN): value for name, value in state.items()})

    def _move_common(self) -> None:
        for name, value in reversed(self.values.items()):
            self.differences.start(name, value - self.common[name])
        rate, momentum = self.point.outer_learning_rate, self.point.outer_momentum
        for name, change in self.differences.finish().items():
            if self.velocity:
                velocity = self.velocity[name].assign(momentum * self.velocity[name] + change)
                change = rate * (change + momentum * velocity)
            self.values[name].assign(self.common[name].assign_add(change))

    def _average(self, tensors: Mapping[str, tf.Variable]) -> dict[str, tf.Tensor]:
        for name, tensor in reversed(tensors.items()):
            self.whole.start(name, tf.convert_to_tensor(tensor))
        return self.whole.finish()

    def _slots(self) -> dict[str, tf.Variable]:
        slots = self.optimizer.slots.items()
        return {f"{slot}.{name}": value for slot, values in slots for name, value in values.items()}
