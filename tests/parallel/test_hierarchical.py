"""The two-level all-reduce on four real ranks, which Horovod takes for two on each of two hosts, and for four on one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvbench.frameworks.ranks import group_by_level
from hvbench.plan.skip import reason_to_skip
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.parallel.hierarchical import COMPRESSIONS, gradients_of, make_point
from tests.parallel.ranks import HERE, run_ranks

RANKS = 4
TOLERANCES = {"none": 3e-7, "fp16": 2e-3}  # of the largest value: float32 sums of four, and 11 bits of a sum
LAYOUTS = {"two hosts": (HERE, "localhost"), "one host": (HERE,)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "layout"),
    [(framework, "two hosts") for framework in FRAMEWORKS] + [(FRAMEWORKS[0], "one host")],
)
def test_every_rank_gets_the_average_over_all(framework: str, layout: str, tmp_path: Path) -> None:
    words = ["-m", "tests.parallel.hierarchical", framework, str(tmp_path)]
    run_ranks(words, folder=tmp_path, size=RANKS, hosts=LAYOUTS[layout])
    ranks = [np.load(tmp_path / f"rank{rank}.npz", allow_pickle=False) for rank in range(RANKS)]
    for compression in COMPRESSIONS:
        point = make_point(framework, compression, ranks=RANKS)
        own = [gradients_of(point, rank=rank) for rank in range(RANKS)]
        for name in own[0]:
            mean = np.mean([each[name].astype(np.float64) for each in own], axis=0)
            found = ranks[0][f"{compression}/{name}"]
            assert found.shape == mean.shape
            assert np.abs(found - mean).max() <= TOLERANCES[compression] * np.abs(mean).max(), name
            for other in ranks[1:]:
                np.testing.assert_array_equal(other[f"{compression}/{name}"], found)


def place(rank: int, *, on_host: int, hosts: int) -> dict[str, str]:
    return {
        "HOROVOD_LOCAL_RANK": str(rank % on_host), "HOROVOD_LOCAL_SIZE": str(on_host),
        "HOROVOD_CROSS_RANK": str(rank // on_host), "HOROVOD_CROSS_SIZE": str(hosts),
    }  # fmt: skip


def test_levels_are_the_hosts_and_the_places_on_them() -> None:
    assert group_by_level(place(4, on_host=2, hosts=3), rank=4, world_size=6) == (
        [[0, 1], [2, 3], [4, 5]],
        [[0, 2, 4], [1, 3, 5]],
    )
    assert group_by_level(place(1, on_host=2, hosts=1), rank=1, world_size=2) == ([[0, 1]], [[0], [1]])


@pytest.mark.parametrize(
    ("environment", "rank", "world_size"),
    [
        (place(0, on_host=2, hosts=2), 0, 3),  # two here, one there
        (place(1, on_host=2, hosts=2), 2, 4),  # numbered across the hosts
        ({}, 0, 2),
    ],
)
def test_hosts_without_counterparts_are_refused_in_words(
    environment: dict[str, str], rank: int, world_size: int
) -> None:
    with pytest.raises(RuntimeError, match=f"as many ranks on every host, numbered host by host: rank {rank} of"):
        group_by_level(environment, rank=rank, world_size=world_size)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"world_size": 1}, "nothing to all-reduce"),
        ({"reduction": "adasum", "controller": "mpi"}, "it does not go with reduction, controller"),
        ({"gradient_predivide": 2.0}, "gradient_predivide"),
        ({"sync_every": 4}, "it does not go with sync_every"),
        ({"shard": "optimizer"}, "it does not go with shard"),
        ({"compression": "bf16"}, "compression bf16"),
        ({"compression": "topk"}, "compression topk"),
    ],
)
def test_what_does_not_go_with_two_levels_is_said(fields: dict, reason: str) -> None:
    point = Point(**({"world_size": 2, "strategy": "hierarchical"} | fields))
    assert reason in str(reason_to_skip(point, world_size=2))
    assert reason_to_skip(Point(world_size=2, strategy="hierarchical", compression="fp16"), world_size=2) is None
