"""Local SGD in numpy, as `hvbench.training.local_sgd` has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hvbench.frameworks.numpy.allreduce import GradientAllReduce, make_allreduce
from hvbench.frameworks.numpy.optimizer import Optimizer

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.ranks import Ranks
from hvbench.spec.point import Point
from hvbench.training.local_sgd import COMMON, OWN, VELOCITY, averages_moments, sends_differences


class ParameterAverage:
    """One model from those of the ranks. `common` and `velocity` are all that it keeps."""

    def __init__(self, point: Point, optimizer: Optimizer, ranks: Ranks) -> None:
        self.point = point
        self.optimizer = optimizer
        self.values = optimizer.parameters
        self.differences = make_allreduce(ranks, compression=point.compression)
        self.whole = make_allreduce(ranks, compression="none")
        keeps_common = sends_differences(point)
        self.common = {name: value.copy() for name, value in self.values.items()} if keeps_common else {}
        self.velocity = {name: np.zeros_like(value) for name, value in self.common.items() if point.has_outer_step}

    def apply(self) -> None:
        """Go on from the same parameters on all ranks."""
        if self.common:
            changes = {name: value - self.common[name] for name, value in self.values.items()}
            for name, change in _average(self.differences, changes).items():
                if self.velocity:
                    self.velocity[name] = self.point.outer_momentum * self.velocity[name] + change
                    change = change + self.point.outer_momentum * self.velocity[name]
                    change = self.point.outer_learning_rate * change
                self.common[name] += change
                self.values[name][...] = self.common[name]
        else:
            for name, average in self.mean().items():
                self.values[name][...] = average
        if averages_moments(self.point):
            for slot in self.optimizer.slots.values():
                for name, average in _average(self.whole, slot).items():
                    slot[name][...] = average
        if self.point.sync_moments == "reset":
            self.optimizer.reset()

    def mean(self) -> Arrays:
        """What trains, averaged over the ranks."""
        return _average(self.whole, self.values)

    def state(self) -> Arrays:
        """`outer/common/NAME`, `outer/velocity/NAME`."""
        kept = {COMMON: self.common, VELOCITY: self.velocity}
        return {f"{prefix}{name}": value.copy() for prefix, arrays in kept.items() for name, value in arrays.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`; without one a round begins."""
        for name, value in self.common.items():
            value[...] = state.get(f"{COMMON}{name}", self.values[name])
        for name, value in self.velocity.items():
            value[...] = state.get(f"{VELOCITY}{name}", 0.0)

    def own_state(self) -> Arrays:
        """`moments/…`: the optimizer's state, where each rank keeps its own."""
        kept = self.optimizer.state() if self.point.keeps_moments else {}
        return {f"{OWN}{name}": value.copy() for name, value in kept.items()}

    def load_own_state(self, state: Arrays) -> None:
        """Continue from an `own_state`."""
        if self.point.keeps_moments:
            self.optimizer.load_state({name.removeprefix(OWN): value for name, value in state.items()})


def _average(allreduce: GradientAllReduce, values: Arrays) -> Arrays:
    for name, value in values.items():
        allreduce.start(name, value.copy())
    return allreduce.finish()
