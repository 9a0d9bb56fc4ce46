"""The all-reduce of gradients in PyTorch, overlapped with the backward pass: Horovod's, hvbench's in bf16, the framework's.

All three have `start(name, gradient)`, called as soon as a gradient is final, and `finish()`, which returns the averages.
"""

from __future__ import annotations

import horovod.torch as hvd
import torch
import torch.distributed

from hvbench.frameworks.pytorch.hierarchical import HierarchicalAllReduce
from hvbench.frameworks.pytorch.operations import start_gather, start_parts, start_reduction, wait
from hvbench.frameworks.pytorch.ranks import HorovodRanks, NativeRanks
from hvbench.frameworks.ranks import Ranks
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.exchange import REDUCTIONS

COMPRESSORS = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


class GradientAllReduce:
    """Average gradients over the ranks with Horovod.

    Gradients are divided by `predivide` before the sum, and the sum by world_size / `predivide`: the same average, and
    less prone to overflow in fp16.
    """

    def __init__(
        self, *, compression: str, world_size: int, reduction: str = "average", predivide: float = 1.0
    ) -> None:
        self.compressor = COMPRESSORS[compression]
        self.world_size = world_size
        self.pending: dict[str, tuple] = {}
        self.choices = {"op": hvd.Average if REDUCTIONS[reduction].is_average else hvd.Adasum}
        if predivide != 1.0:
            self.choices = {
                "op": hvd.Sum, "prescale_factor": 1 / predivide, "postscale_factor": predivide / world_size,
            }  # fmt: skip

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin the all-reduce of one gradient; Horovod fuses small ones into one message."""
        if self.world_size == 1:
            self.pending[name] = (None, gradient)
            return
        wire, context = self.compressor.compress(gradient)
        self.pending[name] = (start_reduction(name, wire, **self.choices), context)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = {}
        for name, (handle, context) in self.pending.items():
            averages[name] = context if handle is None else self.compressor.decompress(wait(handle), context)
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
        self.pending: dict[str, tuple[int, torch.Tensor]] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to send every rank its part of one gradient, padded to a multiple of the number of ranks."""
        padding = -gradient.numel() % self.world_size
        wire = torch.nn.functional.pad(gradient.flatten().bfloat16(), (0, padding)).view(torch.float16)
        self.pending[name] = (start_parts(f"{name}.parts", wire), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Average this rank's parts and gather all parts; canonical name -> average."""
        gathers = {}
        for name, (handle, gradient) in self.pending.items():
            parts = wait(handle).view(torch.bfloat16).view(self.world_size, -1).to(gradient.dtype)
            mean = parts.mean(0).bfloat16().view(torch.float16)
            gathers[name] = (start_gather(f"{name}.averages", mean), gradient)
        averages = {}
        for name, (handle, gradient) in gathers.items():
            values = wait(handle)[: gradient.numel()]
            averages[name] = values.view(torch.bfloat16).to(gradient.dtype).view_as(gradient)
        self.pending = {}
        return averages


class NativeAllReduce:
    """Average gradients with torch.distributed, for ablations; in training DistributedDataParallel does, in its buckets."""

    def __init__(self, ranks: NativeRanks) -> None:
        self.world_size = ranks.world_size
        self.pending: dict[str, tuple] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin the all-reduce of one gradient."""
        self.pending[name] = (torch.distributed.all_reduce(gradient, async_op=True), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        for handle, gradient in self.pending.values():
            handle.wait()
            gradient /= self.world_size  # gloo has sums, no averages
        averages = {name: gradient for name, (_, gradient) in self.pending.items()}
        self.pending = {}
        return averages


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
