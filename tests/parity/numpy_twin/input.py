"""The input of a framework that has no pipeline of its own: a batch is read when it is asked for."""

from __future__ import annotations

from hvbench.training.batches import Batches
from hvbench.training.layout import Batch


class Input:
    """See `hvbench.frameworks.contract.Input`."""

    def __init__(self, batches: Batches, *, steps: range, workers: int) -> None:
        self._batches = batches
        self._steps = iter(steps)

    def train_batch(self, step: int) -> Batch:
        if (expected := next(self._steps, None)) != step:
            raise ValueError(f"step {step} was asked for, the input is at step {expected}")
        return self._batches.train_batch(step)

    def close(self) -> None:
        """Nothing runs."""
