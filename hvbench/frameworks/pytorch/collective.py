"""One all-reduce by itself in PyTorch, for `hvbench allreduce` to time."""

from __future__ import annotations

import numpy as np
import torch

from hvbench.frameworks.pytorch.allreduce import make_allreduce
from hvbench.frameworks.pytorch.runtime import Runtime


class Collective:
    """See `hvbench.frameworks.contract.Collective`."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        self.allreduce = make_allreduce(runtime.ranks, compression=compression)
        self.name = f"collective.{compression}.{elements}"  # Horovod wants one shape per tensor name
        self.values = torch.empty(elements, device=runtime.device)
        self.average = self.values

    def fill(self, values: np.ndarray) -> None:
        self.values.copy_(torch.from_numpy(values))

    def run(self) -> None:
        self.allreduce.start(self.name, self.values)
        self.average = self.allreduce.finish()[self.name]

    def result(self) -> np.ndarray:
        return self.average.cpu().numpy()
