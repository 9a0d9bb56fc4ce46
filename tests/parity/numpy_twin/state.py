"""A training in numpy: what it is made of, and what of it a checkpoint keeps."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.compression import make_exchange
from hvbench.frameworks.numpy.local_sgd import ParameterAverage
from hvbench.frameworks.numpy.model import Model
from hvbench.frameworks.numpy.optimizer import make_optimizer
from hvbench.frameworks.numpy.runtime import Runtime

from hvbench.frameworks.contract import Arrays
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point


class TrainingState:
    """See `hvbench.frameworks.contract.TrainingState`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.passes = 0  # backward passes that training has done
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        self.optimizer = make_optimizer(self.model.trained, point=point)
        self.allreduce = make_exchange(runtime.ranks, point, rank=0, device=runtime.device)
        self.average = ParameterAverage(point, self.optimizer, runtime.ranks) if point.has_local_updates else None

    @property
    def sends_momenta(self) -> bool:
        """A rank alone sends nothing."""
        return False

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def parameters(self) -> Arrays:
        return {name: value.copy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = {f"parameters/{name}": value for name, value in self.parameters().items()}
        state = parameters | {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        state |= self.average.state() if self.average else {}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Arrays) -> None:
        for name in self.model.parameters:
            self.load_parameters({name: state[f"parameters/{name}"]})
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        self.optimizer.load_state({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
        if self.average:
            self.average.load_state(state)

    def load_parameters(self, parameters: Arrays) -> None:
        for name, value in parameters.items():
            self.model.parameters[name][...] = value

    def own_state(self) -> Arrays:
        return self.average.own_state() if self.average else {}

    def load_own_state(self, state: Arrays) -> None:
        if self.average:
            self.average.load_own_state(state)

    def close(self) -> None:
        """No server has to know."""
