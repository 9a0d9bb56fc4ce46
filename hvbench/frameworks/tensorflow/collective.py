"""All-reduces by themselves in TensorFlow, for `hvbench allreduce` to time."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvbench.frameworks.tensorflow.allreduce import make_allreduce
from hvbench.frameworks.tensorflow.runtime import Runtime


class Collective:
    """See `hvbench.frameworks.contract.Collective`. The all-reduce is a graph, as in training."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        self.allreduce = make_allreduce(runtime.ranks, compression=compression)
        self.name = f"collective.{compression}.{elements}"  # Horovod wants one shape per tensor name
        self.device = "GPU:0" if runtime.device == "cuda" else "CPU:0"
        self.values: dict[int, tf.Tensor] = {}
        self.averages: dict[int, tf.Tensor] = {}
        self._graph = tf.function(self._allreduce, autograph=False)

    def fill(self, values: np.ndarray, *, place: int) -> None:
        with tf.device(self.device):
            self.values[place] = tf.constant(values)

    def run(self, place: int) -> None:
        with tf.device(self.device):
            self.averages[place] = self._graph(self.values[place])

    def result(self, place: int) -> np.ndarray:
        return self.averages[place].numpy()

    def _allreduce(self, values: tf.Tensor) -> tf.Tensor:
        self.allreduce.start(self.name, values)
        return self.allreduce.finish()[self.name]
