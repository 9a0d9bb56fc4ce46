"""All-reduces by themselves in numpy, for `hvbench allreduce` to time: those of a rank alone."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.allreduce import make_allreduce
from hvbench.frameworks.numpy.runtime import Runtime


class Collective:
    """See `hvbench.frameworks.contract.Collective`."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        self.allreduce = make_allreduce(runtime.ranks, compression=compression)
        self.values: dict[int, np.ndarray] = {}
        self.averages: dict[int, np.ndarray] = {}

    def fill(self, values: np.ndarray, *, place: int) -> None:
        self.values[place] = values.copy()

    def run(self, place: int) -> None:
        self.allreduce.start("collective", self.values[place])
        self.averages[place] = self.allreduce.finish()["collective"]

    def result(self, place: int) -> np.ndarray:
        return self.averages[place]
