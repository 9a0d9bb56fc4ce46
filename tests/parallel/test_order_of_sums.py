"""Among more than two ranks a ring's sum has an order, and where it is rounded on the way, the order shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity.pairs import compare_points
from hvbench.parity.run import launched_as, trace_points
from hvbench.plan.jobs import worker_group
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point

RANKS = 3


def make_point(framework: str, **knobs: object) -> Point:
    return Point(
        **{"model": "tiny", "micro_batch_size": 2, "compression": "fp16", "world_size": RANKS} | knobs,
        framework=framework,
    )


@pytest.mark.parametrize(
    "knobs",
    [
        {"world_size": 2},
        {"world_size": 1, "compression": "none"},
        {"compression": "none"},
        {"compression": "bf16"},
        {"compression": "none", "strategy": "native"},
    ],
    ids=str,
)
def test_traces_are_launched_as_their_points_where_the_order_of_a_sum_does_not_show(knobs: dict[str, object]) -> None:
    point = make_point("pytorch", **knobs)
    assert launched_as(point) == point


def test_a_point_with_a_fusion_of_its_own_is_traced_by_the_same_workers() -> None:
    points = [make_point("pytorch", fusion_threshold_bytes=size) for size in (None, 0, 2**20)]
    assert len({worker_group(launched_as(point)) for point in points}) == 1
    assert len({worker_group(point) for point in points}) == 3


@pytest.mark.slow
def test_twins_agree_to_the_same_tolerances_on_three_ranks_that_send_fp16(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    points = [make_point(framework) for framework in FRAMEWORKS]
    with open_launch(resolve_context(RANKS), run_path=tmp_path) as coordinator:
        traced = trace_points(coordinator, points, steps=5)
    parity = compare_points(*(traced[point] for point in points))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven
