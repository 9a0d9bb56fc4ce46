"""The input of a framework that has no pipeline of its own: a batch is read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from hvbench.training.batches import Batch


class Input:
    """See `hvbench.frameworks.contract.Input`."""

    def __init__(self, read: Callable[[int], Batch], *, steps: range, workers: int) -> None:
        self._read = read
        self._steps = iter(steps)

    def train_batch(self, step: int) -> Batch:
        if (expected := next(self._steps, None)) != step:
            raise ValueError(f"step {step} was asked for, the input is at step {expected}")
        return self._read(step)

    def close(self) -> None:
        """Nothing runs."""
