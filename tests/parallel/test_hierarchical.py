"""The two-level all-reduce on four real ranks, which Horovod takes for two on each of two hosts, and for four on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hvbench.frameworks.ranks import group_by_level
from hvbench.parity.compare import compare_traces
from hvbench.parity.run import read_trace
from hvbench.parity.tolerances import tolerances_for
from hvbench.plan.skip import reason_to_skip
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.parallel.hierarchical import COMPRESSIONS, gradients_of, make_point
from tests.parallel.ranks import HERE, run_ranks
from tests.parity.points import four_point

RANKS = 4
TOLERANCES = {"none": 3e-7, "fp16": 2e-3}  # of the largest value: float32 sums of four, and 11 bits of a sum
LAYOUTS = {"two hosts": (HERE, "localhost"), "one host": (HERE,)}
LAUNCHES = [(framework, "two hosts") for framework in FRAMEWORKS] + [(FRAMEWORKS[0], "one host")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(framework, layout) -> where its ranks left what they averaged and trained."""
    folders = {}
    for framework, layout in LAUNCHES:
        folders[framework, layout] = folder = tmp_path_factory.mktemp(framework)
        words = ["-m", "tests.parallel.hierarchical", framework, str(folder)]
        run_ranks(words, folder=folder, size=RANKS, hosts=LAYOUTS[layout])
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "layout"), LAUNCHES)
def test_every_rank_gets_the_average_over_all(whole: dict[tuple[str, str], Path], framework: str, layout: str) -> None:
    folder = whole[framework, layout]
    ranks = [np.load(folder / f"rank{rank}.npz", allow_pickle=False) for rank in range(RANKS)]
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


@pytest.mark.slow
def test_twins_train_the_same_over_two_hosts_and_over_one(whole: dict[tuple[str, str], Path]) -> None:
    """Every rank's losses and norms, the first gradients, and the update that all have in common."""
    first, *others = LAUNCHES
    tolerances = tolerances_for(four_point(FRAMEWORKS[0], {"strategy": "hierarchical"}), is_native=True)
    for launch in others:
        for rank in range(RANKS):
            one, other = (read_trace(whole[each] / f"trace{rank}.npz") for each in (launch, first))
            found = compare_traces(one, other, tolerances=tolerances)
            assert [each for each in found if not each.is_within] == [], (launch, rank)
            assert other["loss"][-1] < other["loss"][0] - 0.2
    for folder in whole.values():
        digests = [json.loads((folder / f"digests{rank}.json").read_text()) for rank in range(RANKS)]
        assert digests == [digests[0]] * RANKS


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
