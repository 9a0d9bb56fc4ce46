"""A rank alone has no momenta to send."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.compression.feedback import FeedbackAllReduce

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point


class OneBitAllReduce(FeedbackAllReduce):
    """Gradients and momenta as they are."""

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        averages, self.pending = self.pending, {}
        return averages

    def average_momenta(self, momenta: Arrays) -> tuple[Arrays, np.ndarray]:
        """Canonical name -> momentum; whether all are finite."""
        return momenta, np.array(all(np.isfinite(value).all() for value in momenta.values()))

    def state(self) -> Arrays:
        """Nothing was left out."""
        return super().state()

    def load_state(self, state: Arrays) -> None:
        """Nothing was left out."""
        super().load_state(state)
