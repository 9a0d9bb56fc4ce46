"""The all-reduce of gradients in TensorFlow, overlapped with the backward pass: Horovod's, hvbench's in bf16, the framework's.

All three have `start(name, gradient)`, called as soon as a gradient is final, and `finish()`, which returns the averages.
"""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.ranks import Ranks
from hvbench.frameworks.tensorflow.hierarchical import HierarchicalAllReduce
from hvbench.frameworks.tensorflow.operations import start_gather, start_parts, start_reduction, wait
from hvbench.frameworks.tensorflow.ranks import HorovodRanks, NativeRanks
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.exchange import REDUCTIONS

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Average gradients over the ranks with Horovod.

    In a graph each all-reduce is an operation that runs as soon as its gradient exists, beside the rest of the backward
    pass.
    Gradients are divided by `predivide` before the sum, and the sum by world_size / `predivide`: the same average, and
    less prone to overflow in fp16.
    """

    def __init__(
        self, *, compression: str, world_size: int, reduction: str = "average", predivide: float = 1.0
    ) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tf.Tensor] = {}
        self.choices = {"op": hvd.Average if REDUCTIONS[reduction].is_average else hvd.Adasum}
        if predivide != 1.0:
            self.choices = {
                "op": hvd.Sum, "prescale_factor": 1 / predivide, "postscale_factor": predivide / world_size,
            }  # fmt: skip

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin the all-reduce of one gradient; Horovod fuses small ones into one message."""
        if self.world_size == 1:
            self.pending[name] = gradient
            return
        wire, context = self.compressor.compress(gradient)
        average = start_reduction(name, wire, **self.choices)
        self.pending[name] = self.compressor.decompress(wait(average), context)

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = self.pending
        self.pending = {}
        return averages


class Bf16AllReduce:
    """Average gradients that are sent as bfloat16, which Horovod cannot sum.

    A reduce-scatter and an all-gather, the two halves of a ring all-reduce: each rank receives all ranks' values of its
    part of a gradient (all-to-all), averages them in float32 and rounds the average to bfloat16; then all parts are
    gathered. The traffic is a ring's, 2 (n - 1) / n of the payload, and no partial sum is rounded to 16 bits. Horovod is
    told that the bits are float16: it only copies them.
    """

    def __init__(self, *, world_size: int) -> None:
        self.world_size = world_size
        self.pending: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to send every rank its part of one gradient, padded to a multiple of the number of ranks."""
        padding = -gradient.shape.num_elements() % self.world_size
        wire = tf.bitcast(tf.pad(tf.cast(tf.reshape(gradient, [-1]), tf.bfloat16), [[0, padding]]), tf.float16)
        self.pending[name] = (start_parts(f"{name}.parts", wire), gradient)

    def finish(self) -> dict[str, tf.Tensor]:
        """Average this rank's parts and gather all parts; canonical name -> average."""
        averages = {}
        for name, (parts, gradient) in self.pending.items():
            parts = tf.cast(tf.reshape(tf.bitcast(wait(parts), tf.bfloat16), [self.world_size, -1]), gradient.dtype)
            mean = tf.bitcast(tf.cast(tf.reduce_mean(parts, 0), tf.bfloat16), tf.float16)
            values = wait(start_gather(f"{name}.averages", mean))
            values = tf.cast(tf.bitcast(values[: gradient.shape.num_elements()], tf.bfloat16), gradient.dtype)
            averages[name] = tf.reshape(values, gradient.shape)
        self.pending = {}
        return averages


class NativeAllReduce:
    """Average gradients with MultiWorkerMirroredStrategy's all-reduce, which packs them into larger messages."""

    def __init__(self, ranks: NativeRanks) -> None:
        self.strategy = ranks.strategy
        self.pending: dict[str, tf.Tensor] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Add one gradient to those that `finish` all-reduces together."""
        self.pending[name] = gradient

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = self.strategy.run(_average, args=(list(self.pending.values()),))
        names, self.pending = list(self.pending), {}
        return dict(zip(names, averages, strict=True))


def make_allreduce(
    ranks: Ranks, *, compression: str, reduction: str = "average", predivide: float = 1.0
) -> GradientAllReduce | HierarchicalAllReduce | Bf16AllReduce | NativeAllReduce:
    """The all-reduce among `ranks`; one that returns gradients unchanged where they are alone or have a parameter server."""
    if isinstance(ranks, NativeRanks):
        return NativeAllReduce(ranks)
    if isinstance(ranks, HorovodRanks) and ranks.levels:
        return HierarchicalAllReduce(ranks.levels, compressor=COMPRESSORS[compression])
    world_size = ranks.world_size if isinstance(ranks, HorovodRanks) else 1
    if world_size > 1 and not WIRE_FORMATS[compression].is_summed_by_horovod:
        return Bf16AllReduce(world_size=world_size)
    return GradientAllReduce(compression=compression, world_size=world_size, reduction=reduction, predivide=predivide)


def _average(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Called in each replica: the mean over all replicas. TensorFlow needs tensors with a device, hence the identities."""
    placed = [tf.identity(gradient) for gradient in gradients]
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, placed)
