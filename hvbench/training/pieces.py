"""The pieces of a checkpoint that several ranks write: parts of flat arrays, which of them a rank writes, and whether they make a whole.

Arrays are cut into pieces of at most PIECE_BYTES. Where every rank holds everything, a ring (`hvbench.training.ring`) says which rank
writes a piece; a rank that holds only parts of some arrays hands out those, cut wherever its parts begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hvbench.training.ring import Ring

PIECE_BYTES = 4 * 2**20
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Consecutive values of an array, counted in C order."""

    name: str  # of the array
    shape: Shape  # of the whole array
    begin: int  # place of the first value in the flat array
    values: np.ndarray  # [count]

    @property
    def key(self) -> str:
        """What it is called in a file: NAME@BEGIN."""
        return name_piece(self.name, self.begin)


def name_piece(name: str, begin: int) -> str:
    """The key of a piece in a file, and on the ring."""
    return f"{name}@{begin}"


def read_piece_name(key: str) -> tuple[str, int] | None:
    """(name of the array, place of the first value) of a piece's key; None for what is none."""
    name, mark, begin = key.rpartition("@")
    return (name, int(begin)) if mark and begin.isascii() and begin.isdigit() and len(begin) < 19 else None


def cut(arrays: Mapping[str, np.ndarray], *, ring: Ring, rank: int) -> Iterator[Piece]:
    """The pieces of whole arrays that `ring` gives to `rank` (views)."""
    for name, array in arrays.items():
        flat = np.ravel(array)
        count = max(1, PIECE_BYTES // array.itemsize)
        for begin in range(0, flat.size, count):
            if ring.owner(name_piece(name, begin)) == rank:
                yield Piece(name=name, shape=array.shape, begin=begin, values=flat[begin : begin + count])


def find_gap(extents: Iterable[tuple[int, int]], *, size: int) -> str | None:
    """Why pieces (begin, count) are not all `size` values, each once; None where they are."""
    reached = 0
    for begin, count in sorted(extents):
        if begin != reached:
            what = "are in no file" if begin > reached else "are there twice"
            return f"values {min(begin, reached)} to {max(begin, reached) - 1} {what}"
        reached += count
    return None if reached == size else f"has {reached} values of {size}"


def count_values(shape: Iterable[int]) -> int:
    """Values of an array of this shape: 1 of a scalar."""
    return math.prod(shape)
