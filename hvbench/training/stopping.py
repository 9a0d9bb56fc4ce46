"""What follows from validation losses: early stopping, and a learning rate that falls where they no longer improve."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class EarlyStopping:
    """Decides after each evaluation. Every rank judges the same losses, averaged over ranks, so all stop at the same step."""

    target_loss: float | None  # nats; None: no target
    patience: int  # evaluations without a better loss before stopping; 0: unlimited
    best: float = math.inf
    without_better: int = 0

    def judge(self, loss: float) -> str | None:
        """Why to stop, `target` or `patience`, or None to continue; NaN is never an improvement."""
        if self.target_loss is not None and loss <= self.target_loss:
            return "target"
        if loss < self.best:
            self.best, self.without_better = loss, 0
        else:
            self.without_better += 1
        return "patience" if self.patience and self.without_better >= self.patience else None


@dataclass(kw_only=True)
class Plateau:
    """The factor of the learning rate, multiplied by `factor` after `patience` evaluations in a row without a better loss.

    As PyTorch's ReduceLROnPlateau and Keras' ReduceLROnPlateau with no threshold and no cooldown; `patience` counts as Keras does,
    whose rate falls at that evaluation (PyTorch's at the next one). Every rank judges the same losses.
    """

    factor: float
    patience: int
    scale: float = 1.0
    best: float = math.inf
    without_better: int = 0

    def judge(self, loss: float) -> None:
        """Take note of one evaluation; NaN is never an improvement."""
        if loss < self.best:
            self.best, self.without_better = loss, 0
            return
        self.without_better += 1
        if self.without_better >= self.patience:
            self.scale, self.without_better = self.scale * self.factor, 0
