"""Horovod's all-reduce of gradients in TensorFlow, started while the backward pass still runs."""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Averages gradients over ranks. `start` each as soon as it is final, then `finish`.

    In a graph each all-reduce is an operation that runs once its gradient exists, beside the rest of the backward pass.
    """

    def __init__(self, *, compression: str, world_size: int) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tf.Tensor] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Put one gradient on the wire; Horovod fuses small ones."""
        if self.world_size == 1:
            self.pending[name] = gradient
            return
        self.pending[name] = hvd.allreduce(
            gradient, name=name.replace(".", "_"), op=hvd.Average, compression=self.compressor, ignore_name_scope=True
        )

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all; canonical name -> average."""
        averages = self.pending
        self.pending = {}
        return averages
