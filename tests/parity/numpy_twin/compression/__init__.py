"""All-reduces that send less than the gradients: of a rank alone none does. What they compute is in `tests/parity/reference_compression.py`."""

from __future__ import annotations

from hvbench.frameworks.numpy.allreduce import GradientAllReduce, make_allreduce
from hvbench.frameworks.numpy.compression.int8 import Int8AllReduce
from hvbench.frameworks.numpy.compression.onebit import OneBitAllReduce
from hvbench.frameworks.numpy.compression.powersgd import PowerSGDAllReduce
from hvbench.frameworks.numpy.compression.topk import TopKAllReduce

from hvbench.frameworks.ranks import Ranks
from hvbench.spec.point import Point

METHODS = {
    "topk": TopKAllReduce,
    "int8": Int8AllReduce,
    "powersgd": PowerSGDAllReduce,
    "onebit": OneBitAllReduce,
}


def make_exchange(ranks: Ranks, point: Point, *, rank: int, device: str) -> GradientAllReduce:
    """The all-reduce of the gradients of `point`: the one of a rank alone."""
    return make_allreduce(ranks, compression=point.compression)
