"""Error feedback of a rank alone, which sends nothing and has nothing left."""

from __future__ import annotations

import abc

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point


class FeedbackAllReduce(abc.ABC):
    """Gradients as they are."""

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        self.residuals: Arrays = {}
        self.pending: Arrays = {}

    @abc.abstractmethod
    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""

    @abc.abstractmethod
    def finish(self) -> Arrays:
        """Canonical name -> average."""

    def state(self) -> Arrays:
        """Nothing was left out."""
        return dict(self.residuals)

    def load_state(self, state: Arrays) -> None:
        """Nothing was left out."""
        self.residuals = dict(state)
