"""A training in TensorFlow: what it is made of (model, optimizer, exchange between the ranks), and what of it a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.parameter_server.client import ServedRanks, ServerClient
from hvbench.frameworks.ranks import SingleRank
from hvbench.frameworks.tensorflow.compression import FeedbackAllReduce, OneBitAllReduce, make_exchange
from hvbench.frameworks.tensorflow.local_sgd import ParameterAverage
from hvbench.frameworks.tensorflow.model import Model
from hvbench.frameworks.tensorflow.optimizer import make_optimizer
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.frameworks.tensorflow.shard import make_shards
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point


class TrainingState:
    """See `hvbench.frameworks.contract.TrainingState`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.device = "GPU:0" if runtime.device == "cuda" else "CPU:0"
        self.rank = runtime.rank
        self.passes = 0  # backward passes done in training: the index into the sequence of dropout's seeds
        runtime.use_tf32(precision.uses_tf32)
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        self.ranks = ranks = runtime.ranks if STRATEGIES[point.strategy].exchanges else SingleRank()
        with tf.device(self.device):
            self.shards = make_shards(point, self.model, rank=runtime.rank, world_size=ranks.world_size)
            if self.shards:
                self.optimizer = make_optimizer(self.shards.parts, point=point, norms=self.shards.measure_norms)
            else:
                self.optimizer = make_optimizer(self.model.trained, point=point)
        self.allreduce = self.shards or make_exchange(ranks, point, rank=runtime.rank, device=self.device)
        with tf.device(self.device):
            self.average = ParameterAverage(point, self.optimizer, ranks) if point.has_local_updates else None
        self.server = ServerClient(point, ranks, weights) if isinstance(ranks, ServedRanks) else None

    @property
    def sends_momenta(self) -> bool:
        """Whether the ranks exchange momenta in the next step, and no gradients."""
        return isinstance(self.allreduce, OneBitAllReduce) and self.optimizer.is_frozen

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def parameters(self) -> Arrays:
        return {name: value.numpy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = self.parameters()
        if self.server:  # which has the optimizer's state, and of parameters the newest
            trained, optimizer = self.server.state()
            parameters |= trained
        else:
            optimizer = self.shards.join(self.optimizer.state()) if self.shards else self.optimizer.state()
        state = {f"parameters/{name}": value for name, value in parameters.items()}
        state |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        state |= self.average.state() if self.average else {}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for name in self._whole_names:
            self.load_parameters({name: state[f"parameters/{name}"]})
        if self.shards:
            self.shards.load(state)
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        optimizer = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        if self.server:
            self.server.load(self.parameters(), optimizer)
        else:
            self.optimizer.load_state(self.shards.cut(optimizer) if self.shards else optimizer)
        if self.average:
            self.average.load_state(state)

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        for name, value in parameters.items():
            self.model.parameters[name].assign(value)

    def own_state(self) -> Arrays:
        if self.average:
            return self.average.own_state()
        return self.allreduce.state() if isinstance(self.allreduce, FeedbackAllReduce) else {}

    def load_own_state(self, state: Arrays) -> None:
        if self.average:
            self.average.load_own_state(state)
        elif isinstance(self.allreduce, FeedbackAllReduce):
            self.allreduce.load_state(state)

    def close(self) -> None:
        if self.server:
            self.server.leave()

    @property
    def _whole_names(self) -> list[str]:
        """Names of the parameters that this rank holds whole."""
        is_shared = self.shards is not None and self.shards.mode.of_parameters
        return [name for name in self.model.parameters if not (is_shared and name in self.model.trained)]
