"""PyTorch's own input: batches from a DataLoader."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hvbench.launch.own_process import die_with_parent
from hvbench.training.batches import Batches
from hvbench.training.layout import Batch, from_arrays, to_arrays

_PREFETCHED = 2  # batches a worker prepares in advance: the library's default


class Input:
    """See `hvbench.frameworks.contract.Input`."""

    def __init__(self, batches: Batches, *, steps: range, workers: int) -> None:
        loader = DataLoader(
            _Steps(batches),
            batch_size=None,  # a batch is made whole
            sampler=steps,
            num_workers=workers,
            prefetch_factor=_PREFETCHED if workers else None,
            multiprocessing_context="fork" if workers else None,  # what is mapped stays mapped; nothing is pickled
            worker_init_fn=partial(_end_with, os.getpid()),
            generator=torch.Generator(),  # or it would draw its seed from that of dropout
        )
        self._steps = iter(steps)
        self._loaded: Any = iter(loader)

    def train_batch(self, step: int) -> Batch:
        if (expected := next(self._steps, None)) != step:
            raise ValueError(f"step {step} was asked for, the input is at step {expected}")
        return from_arrays([tensor.numpy() for tensor in next(self._loaded)])

    def close(self) -> None:
        if end_workers := getattr(self._loaded, "_shutdown_workers", None):
            end_workers()  # not by its destructor alone: the traceback of an error keeps the iterator alive
        self._loaded = None


class _Steps(Dataset):
    """Step -> the arrays of its batch."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(array) for array in to_arrays(self.batches.train_batch(step)))


def _end_with(parent: int, number: int) -> None:
    """In a worker: end with the process that it loads for, however that one ends."""
    die_with_parent(parent)
