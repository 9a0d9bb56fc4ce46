"""PyTorch's own input: batches from a DataLoader."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hvbench.launch.own_process import die_with_parent
from hvbench.training.batches import Batch

PREFETCHED = 2  # batches a worker prepares in advance: the library's default


class Input:
    """See `hvbench.frameworks.contract.Input`."""

    def __init__(self, read: Callable[[int], Batch], *, steps: range, workers: int) -> None:
        loader = DataLoader(
            _Steps(read),
            batch_size=None,  # a batch is made whole
            sampler=steps,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            multiprocessing_context="fork" if workers else None,  # what is mapped stays mapped; nothing is pickled
            worker_init_fn=partial(_end_with, os.getpid()),
            generator=torch.Generator(),  # or it would draw its seed from that of dropout
        )
        self._steps = iter(steps)
        self._batches: Any = iter(loader)

    def train_batch(self, step: int) -> Batch:
        if (expected := next(self._steps, None)) != step:
            raise ValueError(f"step {step} was asked for, the input is at step {expected}")
        return tuple(tensor.numpy() for tensor in next(self._batches))

    def close(self) -> None:
        if end_workers := getattr(self._batches, "_shutdown_workers", None):
            end_workers()  # not by its destructor alone: the traceback of an error keeps the iterator alive
        self._batches = None


class _Steps(Dataset):
    """Step -> its batch."""

    def __init__(self, read: Callable[[int], Batch]) -> None:
        self.read = read

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(array) for array in self.read(step))


def _end_with(parent: int, number: int) -> None:
    """In a worker: end with the process that it loads for, however that one ends."""
    die_with_parent(parent)
