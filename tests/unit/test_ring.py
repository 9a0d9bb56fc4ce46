"""Consistent hashing: who owns a key, what moves when a place is added, and how even the shares are."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from hvbench.training.pieces import PIECE_BYTES, Piece, cut, find_gap, read_piece_name
from hvbench.training.ring import POINTS, Ring

KEYS = [f"parameters/block{number // 12}.weight@{number * 1_048_576}" for number in range(6000)]


@pytest.mark.parametrize("places", [1, 2, 3, 4, 8, 15])
def test_one_more_place_takes_its_share_and_nothing_else_moves(places: int) -> None:
    before, after = Ring(places), Ring(places + 1)
    moved = [key for key in KEYS if before.owner(key) != after.owner(key)]
    assert {after.owner(key) for key in moved} == {places}, "no key moves between places that were there"
    share = len(KEYS) / (places + 1)
    assert abs(len(moved) - share) < 4 * share / math.sqrt(POINTS) + 4 * math.sqrt(share)
    assert sorted(moved) == sorted(after.share(KEYS, place=places))


@pytest.mark.parametrize("places", [2, 4, 8, 16])
def test_no_place_has_more_than_a_quarter_above_its_share(places: int) -> None:
    counts = Counter(map(Ring(places).owner, KEYS))
    assert set(counts) == set(range(places)) and max(counts.values()) <= 1.25 * len(KEYS) / places + 40


def test_owners_are_the_same_in_every_process_and_a_ring_needs_a_place() -> None:
    assert [Ring(4).owner(key) for key in ("a", "b", "c", "d", "e", "f", "g", "h")] == [0, 2, 3, 0, 1, 3, 0, 0]
    with pytest.raises(ValueError, match="a ring of 0 places"):
        Ring(0)


def test_pieces_of_all_ranks_make_every_array_once() -> None:
    count = PIECE_BYTES // 4
    arrays = {
        "large": np.arange(2 * count + 7, dtype=np.float32).reshape(-1, 1),
        "scalar": np.array(7, np.int64),
        "exact": np.zeros((2, count), np.float32),
    }
    found: dict[str, list[Piece]] = {}
    for rank in range(3):
        for piece in cut(arrays, ring=Ring(3), rank=rank):
            assert piece.values.nbytes <= PIECE_BYTES and read_piece_name(piece.key) == (piece.name, piece.begin)
            found.setdefault(piece.name, []).append(piece)
    for name, array in arrays.items():
        pieces = sorted(found[name], key=lambda piece: piece.begin)
        assert find_gap([(piece.begin, piece.values.size) for piece in pieces], size=array.size) is None
        assert np.array_equal(np.concatenate([piece.values for piece in pieces]), array.reshape(-1))
        assert {piece.shape for piece in pieces} == {array.shape}
    assert {name: len(pieces) for name, pieces in found.items()} == {"large": 3, "scalar": 1, "exact": 2}


@pytest.mark.parametrize(
    ("extents", "problem"),
    [
        ([(0, 4), (4, 6)], None),
        ([(4, 6), (0, 4)], None),
        ([(0, 4)], "has 4 values of 10"),
        ([(0, 4), (5, 5)], "values 4 to 4 are in no file"),
        ([(1, 9)], "values 0 to 0 are in no file"),
        ([(0, 4), (2, 8)], "values 2 to 3 are there twice"),
        ([(0, 4), (4, 7)], "has 11 values of 10"),
        ([], "has 0 values of 10"),
    ],
)
def test_what_is_no_whole_is_described(extents: list[tuple[int, int]], problem: str | None) -> None:
    assert find_gap(extents, size=10) == problem


@pytest.mark.parametrize("key", ["", "a", "a@", "a@x", "@1", "a@-1", "a@²", "a@" + "9" * 19])
def test_what_is_no_piece_has_no_place(key: str) -> None:
    assert read_piece_name(key) in (None, ("", 1))
