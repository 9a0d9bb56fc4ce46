"""The parts of an array that the ranks share: flattened, filled up with zeros to a multiple of the ranks, cut into equal parts; what they send.

Zeros cost less than one value a rank and array, keep all parts of one shape, and stay zeros under every update by elements. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.adaptation import is_trained
from hvbench.training.weights import Shape

PARAMETER_BYTES = 4  # of one, in every precision
WINDOW_BYTES = (
    16 << 20
)  # of parameters that are gathered at a time, or of gradients that are sent, unless one is larger


def part_size(shape: Shape, *, world_size: int) -> int:
    """Values of one part of an array of that shape, the zeros of the last ones included."""
    return -(-math.prod(shape) // world_size)


def take_part(array: np.ndarray, *, rank: int, world_size: int) -> np.ndarray:
    """The part [k] of `rank`, as a copy."""
    size = part_size(array.shape, world_size=world_size)
    part = np.zeros(size, array.dtype)
    values = array.reshape(-1)[rank * size : (rank + 1) * size]
    part[: len(values)] = values
    return part


def group_by_window(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Names of arrays of `sizes` (bytes) in their order, as many at a time as have WINDOW_BYTES together, or one."""
    window, filled = [], 0
    for name, size in sizes.items():
        if window and filled + size > WINDOW_BYTES:
            yield window
            window, filled = [], 0
        window.append(name)
        filled += size
    if window:
        yield window


def own_whole(sizes: Mapping[str, int], *, world_size: int) -> list[list[str]]:
    """The arrays that each rank owns where none is cut, as PyTorch's ZeroRedundancyOptimizer deals them out: the largest first, each to the
    rank that has the fewest values so far, the first of such."""
    owned: list[list[str]] = [[] for _ in range(world_size)]
    values = [0] * world_size
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        rank = values.index(min(values))
        owned[rank].append(name)
        values[rank] += sizes[name]
    return owned


def count_shared_bytes(point: Point, *, trained: int, of_blocks: int) -> int:
    """Bytes of the all-reduce that sends as much as one step of a rank: of `trained` values, `of_blocks` of them in blocks.

    An all-reduce sends its payload twice, times (n - 1) / n. Where ranks share what trains, gradients are sent to the ranks that own their parts,
    once, or once a pass, and parameters come from there: once when they have been updated, or, where they are shared, too, whenever a
    pass uses them, which is twice in blocks, for these are computed again, and once elsewhere. A tied embedding is used twice.
    A framework that shares moments by itself all-reduces whole gradients, and each rank sends what it has updated once.
    """
    if point.shares_by_itself:
        return trained * (2 * PARAMETER_BYTES + PARAMETER_BYTES) // 2
    value_bytes, shard = WIRE_FORMATS[point.compression].value_bytes, SHARDS[point.shard]
    passes = point.gradient_accumulation_steps if shard.of_gradients else 1
    if not shard.of_parameters:
        return trained * (passes * value_bytes + PARAMETER_BYTES) // 2
    is_used_twice = point.tied_embeddings and not point.predicts_labels and is_trained(point, "token_embedding")
    used = trained + (point.vocab_size * point.hidden_size if is_used_twice else 0)
    return passes * (used * (value_bytes + PARAMETER_BYTES) + of_blocks * PARAMETER_BYTES) // 2
