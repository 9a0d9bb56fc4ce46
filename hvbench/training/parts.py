"""The parts of an array that the ranks share: flattened, filled up with zeros to a multiple of the ranks, cut into equal parts.

Zeros cost less than one value a rank and array, keep all parts of one shape, and stay zeros under every update by elements. Pure.
"""

from __future__ import annotations

import math

import numpy as np

from hvbench.training.weights import Shape


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


def join_parts(parts: np.ndarray, shape: Shape) -> np.ndarray:
    """All parts, one behind the other [n k] -> the array."""
    return parts[: math.prod(shape)].reshape(shape)
