"""All-reduces by themselves in PyTorch, for `hvbench allreduce` to time."""

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
        self.device = runtime.device
        self.values: dict[int, torch.Tensor] = {}
        self.averages: dict[int, torch.Tensor] = {}

    def fill(self, values: np.ndarray, *, place: int) -> None:
        self.values[place] = torch.tensor(values, device=self.device)

    def run(self, place: int) -> None:
        self.allreduce.start(self.name, self.values[place])
        self.averages[place] = self.allreduce.finish()[self.name]

    def result(self, place: int) -> np.ndarray:
        return self.averages[place].cpu().numpy()
