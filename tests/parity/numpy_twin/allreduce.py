"""The average of one rank's gradients: themselves."""

from __future__ import annotations

import numpy as np

from hvbench.frameworks.contract import Arrays

COMPRESSORS = {"none": None}  # one rank has no wire


class GradientAllReduce:
    """Averages gradients over ranks. `start` each as soon as it is final, then `finish`."""

    def __init__(self, *, compression: str, world_size: int) -> None:
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
