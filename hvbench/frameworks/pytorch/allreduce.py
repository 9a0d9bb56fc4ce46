"""The all-reduce of gradients in PyTorch, started while the backward pass still runs: Horovod's, and others beside it."""

from __future__ import annotations

import horovod.torch as hvd
import torch
import torch.distributed

from hvbench.frameworks.pytorch.ranks import HorovodPeers, NativePeers
from hvbench.frameworks.ranks import Peers

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Averages gradients over ranks, by Horovod. `start` each as soon as it is final, then `finish`.

    `predivide` divides before the sum and multiplies after it: the same average, less prone to overflow.
    """

    def __init__(
        self, *, compression: str, world_size: int, reduction: str = "average", predivide: float = 1.0
    ) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tuple] = {}
        self.choices = {"op": hvd.Adasum if reduction == "adasum" else hvd.Average}
        if predivide != 1.0:
            self.choices = {
                "op": hvd.Sum, "prescale_factor": 1 / predivide, "postscale_factor": predivide / world_size,
            }  # fmt: skip

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Put one gradient on the wire; Horovod fuses small ones."""
        if self.world_size == 1:
            self.pending[name] = (None, gradient)
            return
        wire, context = self.compressor.compress(gradient)
        self.pending[name] = (hvd.allreduce_async_(wire, name=name, **self.choices), context)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all; canonical name -> average."""
        averages = {}
        for name, (handle, context) in self.pending.items():
            averages[name] = context if handle is None else self.compressor.decompress(hvd.synchronize(handle), context)
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
        self.pending: dict[str, tuple[int, torch.Tensor]] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Send every rank its part of one gradient."""
        padding = -gradient.numel() % self.world_size
        wire = torch.nn.functional.pad(gradient.flatten().bfloat16(), (0, padding)).view(torch.float16)
        self.pending[name] = (hvd.alltoall_async(wire, name=f"{name}.parts"), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Average this rank's parts, and gather everybody's; canonical name -> average."""
        gathers = {}
        for name, (handle, gradient) in self.pending.items():
            parts, _ = hvd.synchronize(handle)
            parts = parts.view(torch.bfloat16).view(self.world_size, -1).to(gradient.dtype)
            mean = parts.mean(0).bfloat16().view(torch.float16)
            gathers[name] = (hvd.allgather_async(mean, name=f"{name}.averages"), gradient)
        averages = {}
        for name, (handle, gradient) in gathers.items():
            values = hvd.synchronize(handle)[: gradient.numel()]
            averages[name] = values.view(torch.bfloat16).to(gradient.dtype).view_as(gradient)
        self.pending = {}
        return averages


class NativeAllReduce:
    """Averages gradients by the framework's own collective; in training DistributedDataParallel does, in its buckets."""

    def __init__(self, peers: NativePeers) -> None:
        self.world_size = peers.world_size
        self.pending: dict[str, tuple] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Put one gradient on the wire."""
        self.pending[name] = (torch.distributed.all_reduce(gradient, async_op=True), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all; canonical name -> average."""
        for handle, gradient in self.pending.values():
            handle.wait()
            gradient /= self.world_size  # gloo knows no average
        averages = {name: gradient for name, (_, gradient) in self.pending.items()}
        self.pending = {}
        return averages


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
