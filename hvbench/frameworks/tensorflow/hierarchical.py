"""A two-level all-reduce in TensorFlow: within each host, then between the hosts, each rank with its share of the gradients.

A ring over all ranks passes every host's link 2 (n - 1) / n times the payload, whatever number of the n ranks share the host. Here the
ranks of a host sum among themselves first (each gets its part of all, and adds), so that 2 (h - 1) / h times the payload leaves a host of h; then each
gathers the others' shares (all-gather). Of one rank a host it is a ring over the hosts, on one host parts and an all-gather.
"""

from __future__ import annotations

from collections.abc import Callable

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.tensorflow.operations import start_gather, start_parts, start_reduction
from hvbench.frameworks.tensorflow.ranks import Levels


class HierarchicalAllReduce:
    """Average gradients over the ranks, level by level; the sums of both levels are divided at the end."""

    def __init__(self, levels: Levels, *, compressor: type[hvd.compression.Compressor]) -> None:
        self.compressor = compressor
        self.levels = levels
        self.host_size, hosts = (1 if each is None else each.size() for each in (levels.host, levels.between))
        self.world_size = self.host_size * hosts
        self.stages: list[Callable[[str, tf.Tensor], tf.Tensor]] = []
        if levels.host:
            self.stages.append(self._sum_in_host)
        if levels.between:
            self.stages.append(self._sum_between_hosts)
        if levels.host:
            self.stages.append(self._gather_in_host)
        self.pending: dict[str, tf.Tensor] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin with one gradient: in a graph each stage runs as soon as the one before has ended, beside the rest of the backward pass."""
        wire, context = self.compressor.compress(gradient)
        size = gradient.shape.num_elements()
        values = tf.pad(tf.reshape(wire, [-1]), [[0, -size % self.host_size]])
        for stage in self.stages:
            values = stage(name, values)
        total = self.compressor.decompress(values[:size], context)
        self.pending[name] = tf.reshape(total / self.world_size, gradient.shape)

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = self.pending
        self.pending = {}
        return averages

    def _sum_in_host(self, name: str, values: tf.Tensor) -> tf.Tensor:
        parts = start_parts(f"{name}.host", values, process_set=self.levels.host)
        parts = tf.reshape(parts, [self.host_size, values.shape[0] // self.host_size])
        return tf.cast(tf.reduce_sum(tf.cast(parts, tf.float32), 0), values.dtype)  # fp16 is added in float32

    def _sum_between_hosts(self, name: str, values: tf.Tensor) -> tf.Tensor:
        return start_reduction(f"{name}.between", values, op=hvd.Sum, process_set=self.levels.between)

    def _gather_in_host(self, name: str, values: tf.Tensor) -> tf.Tensor:
        return start_gather(f"{name}.gather", values, process_set=self.levels.host)
