"""What of a gradient is sent where less is sent than all of it, and in how many bytes. Pure; both twins ask here.

    topk    the k values that are largest by size (Aji & Heafield, arXiv:1704.05021; with error feedback: Stich et al.,
            arXiv:1809.07599), each with its index, of every rank to every other
    int8    each value as a whole number of steps, of which a bucket of consecutive values has 127 up to its largest
            (Alistarh et al., arXiv:1610.02132, section 3.3, rounded to nearest); parts of all ranks to the one that sums them,
            and its average, rounded again, back to all
    powersgd    a matrix M as P Q^T of a low rank r: P = M Q, averaged and made orthonormal, Q = M^T P, averaged (Vogels et al.,
            arXiv:1905.13727, algorithms 1 and 2); Q is where the next step begins. Vectors, and matrices that P and Q are no smaller
            than, are sent as they are

A rank adds what it did not send to its next gradient.
"""

from __future__ import annotations

import math

import numpy as np

from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.point import Point
from hvbench.training.weights import trained_shapes

Shape = tuple[int, ...]

INDEX_BYTES = VALUE_BYTES = SCALE_BYTES = 4  # int32, float32, float32
CODES = 127  # the largest of int8: as many steps to either side of 0
STEP = float(
    np.float32(1 / CODES)
)  # of a bucket whose largest value is 1; as a float32, so that every product is the same


def topk_count(values: int, point: Point) -> int:
    """How many of a gradient's `values` are sent."""
    return max(1, round(point.topk_share * values))


def part_length(values: int, world_size: int) -> int:
    """How many of a gradient's `values` one rank sums; the last parts are filled up."""
    return -(-values // world_size)


def own_part(values: int, *, rank: int, world_size: int) -> slice:
    """Which of a gradient's `values` a rank sums, without those that fill up its part."""
    length = part_length(values, world_size)
    return slice(min(values, rank * length), min(values, (rank + 1) * length))


def payload_bytes(shape: Shape, point: Point) -> int:
    """Bytes that a rank hands to Horovod for one gradient of `shape`: values, indices and scales.

    What of that crosses its link says `hvbench.spec.compression.Compression.crossing_share`.
    """
    values, compression = math.prod(shape), COMPRESSIONS[point.compression]
    if point.compression == "topk":
        return topk_count(values, point) * (INDEX_BYTES + VALUE_BYTES)
    if point.compression == "int8":
        length = part_length(values, point.world_size or 1)
        return (point.world_size or 1) * (length + -(-length // point.int8_bucket) * SCALE_BYTES)
    if point.compression == "powersgd" and is_low_rank(shape, point):
        return point.powersgd_rank * sum(matrix_sides(shape)) * VALUE_BYTES
    return values * compression.wire.value_bytes


def matrix_sides(shape: Shape) -> tuple[int, int]:
    """Rows and columns of a gradient as a matrix: its first dimension, and all others."""
    return shape[0], math.prod(shape[1:])


def is_low_rank(shape: Shape, point: Point) -> bool:
    """Whether PowerSGD sends a gradient as two matrices, which have fewer values than it has; so the rank is below its smaller side."""
    rows, columns = matrix_sides(shape)
    return len(shape) > 1 and point.powersgd_rank * (rows + columns) < rows * columns


def feedback_shapes(point: Point) -> dict[str, Shape]:
    """Canonical name -> shape of the gradients of which a rank keeps what it did not send."""
    if not COMPRESSIONS[point.compression].feeds_back or (point.world_size or 1) == 1:
        return {}
    shapes = trained_shapes(point)
    if point.compression == "powersgd":
        return {name: shape for name, shape in shapes.items() if is_low_rank(shape, point)}
    return shapes


def initial_factors(point: Point) -> dict[str, np.ndarray]:
    """Canonical name -> the Q [columns, rank] with which PowerSGD's first step begins, the same on all ranks."""
    random = np.random.default_rng([point.seed, 1905_13727])
    return {
        name: random.standard_normal((matrix_sides(shape)[1], point.powersgd_rank), dtype=np.float32)
        for name, shape in feedback_shapes(point).items()
    }
