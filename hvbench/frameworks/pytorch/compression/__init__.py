"""All-reduces in PyTorch that send less than the gradients and feed back what is left; `hvbench.training.compression` has the methods."""

from __future__ import annotations

from hvbench.frameworks.pytorch.allreduce import GradientAllReduce, make_allreduce
from hvbench.frameworks.pytorch.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.pytorch.compression.int8 import Int8AllReduce
from hvbench.frameworks.pytorch.compression.onebit import OneBitAllReduce
from hvbench.frameworks.pytorch.compression.powersgd import PowerSGDAllReduce
from hvbench.frameworks.pytorch.compression.topk import TopKAllReduce
from hvbench.frameworks.pytorch.ranks import HorovodRanks
from hvbench.frameworks.ranks import Ranks
from hvbench.spec.point import Point

METHODS = {
    "topk": TopKAllReduce,
    "int8": Int8AllReduce,
    "powersgd": PowerSGDAllReduce,
    "onebit": OneBitAllReduce,
}


def make_exchange(ranks: Ranks, point: Point, *, rank: int, device: str) -> FeedbackAllReduce | GradientAllReduce:
    """The all-reduce of the gradients of `point` among `ranks`, of which this is `rank`, on `device`."""
    if isinstance(ranks, HorovodRanks) and ranks.world_size > 1 and point.compression in METHODS:
        return METHODS[point.compression](point, rank=rank, device=device)
    return make_allreduce(
        ranks, compression=point.compression, reduction=point.reduction, predivide=point.gradient_predivide
    )
