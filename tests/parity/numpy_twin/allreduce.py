"""The average of one rank's gradients: themselves."""

from __future__ import annotations

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.ranks import Ranks

COMPRESSORS = {"none": None}  # one rank has no wire


class GradientAllReduce:
    """Averages gradients over ranks. `start` each as soon as it is final, then `finish`."""

    def __init__(
        self, *, compression: str, world_size: int, reduction: str = "average", predivide: float = 1.0
    ) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: Arrays = {}

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        averages = self.pending
        self.pending = {}
        return averages


class Bf16AllReduce(GradientAllReduce):
    """One rank rounds nothing."""

    def __init__(self, *, world_size: int) -> None:
        super().__init__(compression="none", world_size=world_size)

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        return super().finish()


class NativeAllReduce(GradientAllReduce):
    """numpy has no collectives of its own."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(compression="none", world_size=ranks.world_size)

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        return super().finish()


def make_allreduce(
    ranks: Ranks, *, compression: str, reduction: str = "average", predivide: float = 1.0
) -> GradientAllReduce:
    """The all-reduce among `ranks`: the one of a rank alone, which compresses nothing."""
    return GradientAllReduce(compression="none", world_size=ranks.world_size)
