"""One all-reduce by itself in numpy, for `hvbench allreduce` to time: that of a rank alone."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.allreduce import make_allreduce
from hvbench.frameworks.numpy.runtime import Runtime


class Collective:
    """See `hvbench.frameworks.contract.Collective`."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        self.allreduce = make_allreduce(runtime.ranks, compression=compression)
        self.values = np.zeros(elements, np.float32)

    def fill(self, values: np.ndarray) -> None:
        np.copyto(self.values, values)

    def run(self) -> None:
        self.allreduce.start("collective", self.values)
        self.values = self.allreduce.finish()["collective"]

    def result(self) -> np.ndarray:
        return self.values
