"""When a training ends before its last step: at the target loss, or when it has stopped getting better."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class EarlyStopping:
    """Told every validation loss, over all ranks, in order; the same losses stop every rank at the same step."""

    target_loss: float | None  # None: no loss is low enough
    patience: int  # evaluations without a better loss; 0: any number of them
    best: float = math.inf
    without_better: int = 0

    def judge(self, loss: float) -> str | None:
        """`target`, `patience`, or None: train on. A loss that is no number is not better than any."""
        if self.target_loss is not None and loss <= self.target_loss:
            return "target"
        if loss < self.best:
            self.best, self.without_better = loss, 0
        else:
            self.without_better += 1
        return "patience" if self.patience and self.without_better >= self.patience else None
