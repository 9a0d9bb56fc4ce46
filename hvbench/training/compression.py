"""What of a gradient is sent where less is sent than all of it, and in how many bytes. Pure; both twins ask here.

    topk    the k values that are largest by size (Aji & Heafield, arXiv:1704.05021; with error feedback: Stich et al.,
            arXiv:1809.07599), each with its index, of every rank to every other
    int8    each value as a whole number of steps, of which a bucket of consecutive values has 127 up to its largest
            (Alistarh et al., arXiv:1610.02132, section 3.3, rounded to nearest); parts of all ranks to the one that sums them,
            and its average, rounded again, back to all
    powersgd    a matrix M as P Q^T of a low rank r: P = M Q, averaged and made orthonormal, Q = M^T P, averaged (Vogels et al.,
            arXiv:1905.13727, algorithms 1 and 2); Q is where the next step begins. Vectors, and matrices that P and Q are no smaller
            than, are sent as they are
    onebit  1-bit Adam (Tang et al., arXiv:2102.02888, algorithm 1): after some updates with averaged gradients second moments
            freeze, and each rank's m = beta1 m + (1 - beta1) g is sent as its signs, a bucket of consecutive values with the mean of
            their sizes as scale (Karimireddy et al., arXiv:1901.09847, section 4: what is left is then always less than what was to
            send); parts of all ranks to the one that averages them, and its average, as signs again, back to all

A rank adds what it did not send to its next gradient, of onebit to its next momentum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.point import Point
from hvbench.training.weights import trained_shapes

Shape = tuple[int, ...]

INDEX_BYTES = VALUE_BYTES = SCALE_BYTES = 4  # int32, float32, float32
SIGNS_IN_A_BYTE = 8
# Byte -> the signs that its bits stand for, the highest bit first (`numpy.packbits`): 1 is +1.
SIGNS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), 1, -1).astype(np.float32)
# Times eight bytes of 0 or 1, read as one little-endian integer: its highest byte has the first of them as its highest bit.
PACKING = int(np.array(0x8040201008040201, np.uint64).astype(np.int64))
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
    if point.compression == "onebit":
        return (point.world_size or 1) * momentum_layout(values, point).message_bytes
    if point.compression == "powersgd" and is_low_rank(shape, point):
        return point.powersgd_rank * sum(matrix_sides(shape)) * VALUE_BYTES
    return values * compression.wire.value_bytes


@dataclass(frozen=True, kw_only=True)
class MomentumLayout:
    """How a momentum lies in 1-bit Adam's messages: each rank's part of it as signs, then a scale for each bucket of it."""

    values: int  # of the whole momentum
    world_size: int
    bucket: int  # values that share a scale: signs of whole bytes, no more than a part has

    @property
    def length(self) -> int:
        """Values of a part; the last parts are filled up."""
        return part_length(self.values, self.world_size)

    @property
    def buckets(self) -> int:
        """Of a part."""
        return -(-self.length // self.bucket)

    @property
    def filled_length(self) -> int:
        """Values of a part whose last bucket is filled up."""
        return self.bucket * self.buckets

    @property
    def sign_bytes(self) -> int:
        """Of a part."""
        return -(-self.length // SIGNS_IN_A_BYTE)

    @property
    def message_bytes(self) -> int:
        """Of a part, signs and scales."""
        return self.sign_bytes + self.buckets * SCALE_BYTES

    @property
    def bucket_sizes(self) -> np.ndarray:
        """How many values each bucket [ranks, buckets] of the ranks' parts has without those that fill it up; at least 1."""
        parts = [own_part(self.values, rank=rank, world_size=self.world_size) for rank in range(self.world_size)]
        filled = np.array([part.stop - part.start for part in parts])[:, None] - self.bucket * np.arange(self.buckets)
        return np.clip(filled, 1, self.bucket).astype(np.float64)


def momentum_layout(values: int, point: Point) -> MomentumLayout:
    """The layout of a momentum of so many `values` in the messages of `point`."""
    world_size = point.world_size or 1
    whole_bytes = -(-part_length(values, world_size) // SIGNS_IN_A_BYTE) * SIGNS_IN_A_BYTE
    return MomentumLayout(values=values, world_size=world_size, bucket=min(point.onebit_bucket, whole_bytes))


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
