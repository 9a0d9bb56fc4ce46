"""All-reduces in TensorFlow that send less than the gradients and feed back what is left; `hvbench.training.compression` has the methods."""

from __future__ import annotations

from hvbench.frameworks.ranks import Ranks
from hvbench.frameworks.tensorflow.allreduce import GradientAllReduce, make_allreduce
from hvbench.frameworks.tensorflow.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.tensorflow.compression.int8 import Int8AllReduce
from hvbench.frameworks.tensorflow.compression.onebit import OneBitAllReduce
from hvbench.frameworks.tensorflow.compression.powersgd import PowerSGDAllReduce
from hvbench.frameworks.tensorflow.compression.topk import TopKAllReduce
from hvbench.frameworks.tensorflow.ranks import HorovodRanks
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
