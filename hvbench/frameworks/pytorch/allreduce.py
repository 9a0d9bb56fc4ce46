"""Horovod's all-reduce of gradients in PyTorch, started while the backward pass still runs."""

from __future__ import annotations

import horovod.torch as hvd
import torch

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Averages gradients over ranks. `start` each as soon as it is final, then `finish`."""

    def __init__(self, *, compression: str, world_size: int) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tuple] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Put one gradient on the wire; Horovod fuses small ones."""
        if self.world_size == 1:
            self.pending[name] = (None, gradient)
            return
        wire, context = self.compressor.compress(gradient)
        self.pending[name] = (hvd.allreduce_async_(wire, name=name, op=hvd.Average), context)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all; canonical name -> average."""
        averages = {}
        for name, (handle, context) in self.pending.items():
            averages[name] = context if handle is None else self.compressor.decompress(hvd.synchronize(handle), context)
        self.pending = {}
        return averages
