"""A rank alone sends all that it has."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.compression.feedback import FeedbackAllReduce

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point


class PowerSGDAllReduce(FeedbackAllReduce):
    """Gradients as they are."""

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        averages, self.pending = self.pending, {}
        return averages

    def state(self) -> Arrays:
        """Nothing was left out."""
        return super().state()

    def load_state(self, state: Arrays) -> None:
        """Nothing was left out."""
        super().load_state(state)


def orthonormalize(matrix: np.ndarray) -> np.ndarray:
    """The columns of a matrix by the modified Gram-Schmidt process, first to last; a column of zeros stays one."""
    columns = list(np.array(matrix, copy=True).T)
    for index, column in enumerate(columns):
        norm = np.linalg.norm(column)
        column /= norm if norm > 0 else 1.0
        for later in columns[index + 1 :]:
            later -= (column @ later) * column
    return np.stack(columns, 1)
