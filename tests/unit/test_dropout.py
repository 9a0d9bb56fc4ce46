"""The seeds of dropout: none without it, one for every pass of every rank, the same again in a second run."""

from __future__ import annotations

from hvbench.spec.point import Point
from hvbench.training.dropout import dropout_seed

POINT = Point(model="tiny", dropout=0.1)


def test_without_dropout_there_is_no_seed() -> None:
    assert dropout_seed(Point(model="tiny"), rank=0, pass_number=0) is None


def test_seeds_depend_on_pass_rank_and_seed_and_are_reproducible() -> None:
    points = [POINT, POINT.model_copy(update={"seed": 1})]
    places = [(point, rank, number) for point in points for rank in range(3) for number in range(100)]
    seeds = [dropout_seed(point, rank=rank, pass_number=number) for point, rank, number in places]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [dropout_seed(point, rank=rank, pass_number=number) for point, rank, number in places]
    assert all(0 <= part < 2**31 for seed in seeds for part in seed)


def test_the_frameworks_share_their_seeds() -> None:
    other = POINT.model_copy(update={"framework": "tensorflow"})
    assert dropout_seed(POINT, rank=1, pass_number=7) == dropout_seed(other, rank=1, pass_number=7)
