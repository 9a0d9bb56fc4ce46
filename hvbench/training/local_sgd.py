"""Local SGD: what the ranks exchange at the end of a round of updates of their own, and how many bytes that is.

Local SGD (Stich, arXiv:1805.09767, algorithm 1; as FedAvg McMahan et al., arXiv:1602.05629): the ranks make `sync_every` updates, each
by its own gradients and with its own optimizer, then average their parameters. Post-local SGD (Lin et al., arXiv:1808.07217, section 3)
averages gradients in the first `sync_start` updates. When a round ends says `hvbench.spec.rounds`.

What becomes of the optimizer's state at an average is `sync_moments`: it is averaged like the parameters (then each moment is sent, too,
always in float32, for second moments are too small for 16 bits); each rank keeps its own; or it begins anew, the number of updates that
its bias correction counts included.

The outer step of DiLoCo (Douillard et al., arXiv:2311.08105, algorithm 1; Nesterov's, as PyTorch's SGD has it) moves the parameters x that the
ranks last had in common by the average c of what a round changed, with learning rate h and momentum m, whose velocity v begins at 0:

    v := m v + c
    x := x + h (c + m v)

Without it x := x + c: the average. What is compressed are the differences from the last common parameters, which are small, never the
parameters themselves; uncompressed and without an outer step the parameters are averaged, and no copy of the common ones is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.optimizer import OPTIMIZERS
from hvbench.spec.point import Point
from hvbench.training.optimizers import state_shapes
from hvbench.training.weights import trained_shapes

MOMENT_BYTES = 4  # of a value, on the wire, too
COMMON, VELOCITY = "outer/common/", "outer/velocity/"  # begin names of a trainer's state
OWN = "moments/"  # begins those of a rank's own


def sends_differences(point: Point) -> bool:
    """Whether each rank keeps the last common parameters, and sends by how much its own differ."""
    return point.has_outer_step or (point.has_local_updates and WIRE_FORMATS[point.compression].is_compressed)


def averages_moments(point: Point) -> bool:
    """Whether the optimizer's state is averaged, too."""
    return point.has_local_updates and point.sync_moments == "average"


def count_exchanged_bytes(point: Point, *, trained: int | None = None) -> int:
    """What a rank hands to the all-reduce in one exchange, of gradients or at the end of a round, as it goes on the wire.

    `trained`: the number of values that train, where it is known already.
    """
    if trained is None:
        trained = _count_values(trained_shapes(point).values())
    moments = MOMENT_BYTES * _count_moments(point, trained) if averages_moments(point) else 0
    return trained * WIRE_FORMATS[point.compression].value_bytes + moments


def _count_moments(point: Point, trained: int) -> int:
    if OPTIMIZERS[point.optimizer].is_factored:
        return sum(_count_values(slot.values()) for slot in state_shapes(point).values())
    # One block says how many arrays of every parameter's shape there are: an untrusted suite may ask for a million.
    return trained * len(state_shapes(point.model_copy(update={"num_layers": 1})))


def _count_values(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes))
