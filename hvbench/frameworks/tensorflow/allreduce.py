"""The all-reduce of gradients in TensorFlow, started while the backward pass still runs: Horovod's, and others beside it."""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.ranks import Peers
from hvbench.frameworks.tensorflow.ranks import HorovodPeers, NativePeers

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Averages gradients over ranks, by Horovod. `start` each as soon as it is final, then `finish`.

    In a graph each all-reduce is an operation that runs once its gradient exists, beside the rest of the backward pass.
    `predivide` divides before the sum and multiplies after it: the same average, less prone to overflow.
    """

    def __init__(
        self, *, compression: str, world_size: int, reduction: str = "average", predivide: float = 1.0
    ) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tf.Tensor] = {}
        self.choices = {"op": hvd.Adasum if reduction == "adasum" else hvd.Average}
        if predivide != 1.0:
            self.choices = {
                "op": hvd.Sum, "prescale_factor": 1 / predivide, "postscale_factor": predivide / world_size,
            }  # fmt: skip

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Put one gradient on the wire; Horovod fuses small ones."""
        if self.world_size == 1:
            self.pending[name] = gradient
            return
        wire, context = self.compressor.compress(gradient)
        average = hvd.allreduce(wire, name=_wire_name(name), ignore_name_scope=True, **self.choices)
        self.pending[name] = self.compressor.decompress(average, context)

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all; canonical name -> average."""
        averages = self.pending
        self.pending = {}
        return averages


class Bf16AllReduce:
    """Averages gradients that are bfloat16 on the wire, for which Horovod has no sum.

    Each rank gets the others' values of its own part of a gradient (all-to-all), averages them in float32, rounds once
    more, and all parts are gathered: the two halves of a ring all-reduce, 2 (n - 1) / n of the payload like there, and
    no sum is ever rounded to 16 bits on the way. Horovod takes the bits for float16, which it only copies here.
    """

    def __init__(self, *, world_size: int) -> None:
        self.world_size = world_size
        self.pending: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Send every rank its part of one gradient."""
        padding = -gradient.shape.num_elements() % self.world_size
        wire = tf.bitcast(tf.pad(tf.cast(tf.reshape(gradient, [-1]), tf.bfloat16), [[0, padding]]), tf.float16)
        parts = hvd.alltoall(wire, name=_wire_name(f"{name}.parts"), ignore_name_scope=True)
        self.pending[name] = (parts, gradient)

    def finish(self) -> dict[str, tf.Tensor]:
        """Average this rank's parts, and gather everybody's; canonical name -> average."""
        averages = {}
        for name, (parts, gradient) in self.pending.items():
            parts = tf.cast(tf.reshape(tf.bitcast(parts, tf.bfloat16), [self.world_size, -1]), gradient.dtype)
            mean = tf.bitcast(tf.cast(tf.reduce_mean(parts, 0), tf.bfloat16), tf.float16)
            values = hvd.allgather(mean, name=_wire_name(f"{name}.averages"), ignore_name_scope=True)
            values = tf.cast(tf.bitcast(values[: gradient.shape.num_elements()], tf.bfloat16), gradient.dtype)
            averages[name] = tf.reshape(values, gradient.shape)
        self.pending = {}
        return averages


class NativeAllReduce:
    """Averages gradients by the framework's own collective, MultiWorkerMirroredStrategy's, in its packs."""

    def __init__(self, peers: NativePeers) -> None:
        self.strategy = peers.strategy
        self.pending: dict[str, tf.Tensor] = {}

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Put one gradient on the wire."""
        self.pending[name] = gradient

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all; canonical name -> average."""
        averages = self.strategy.run(_average, args=(list(self.pending.values()),))
        names, self.pending = list(self.pending), {}
        return dict(zip(names, averages, strict=True))


def make_allreduce(
    peers: Peers, *, compression: str, reduction: str = "average", predivide: float = 1.0
) -> GradientAllReduce | Bf16AllReduce | NativeAllReduce:
    """The all-reduce among `peers`; of peers that know none, one that leaves gradients as they are."""
    if isinstance(peers, NativePeers):
        return NativeAllReduce(peers)
    world_size = peers.world_size if isinstance(peers, HorovodPeers) else 1
    if compression == "bf16" and world_size > 1:
        return Bf16AllReduce(world_size=world_size)
    return GradientAllReduce(compression=compression, world_size=world_size, reduction=reduction, predivide=predivide)


def _average(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """In a replica: the mean over all replicas, packed by TensorFlow, which wants to know the tensors' device."""
    placed = [tf.identity(gradient) for gradient in gradients]
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, placed)


def _wire_name(name: str) -> str:
    """As Horovod's operations may be named."""
    return name.replace(".", "_")
