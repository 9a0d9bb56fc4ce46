"""Early stopping: at a target loss, or when the validation loss has stopped improving."""

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
