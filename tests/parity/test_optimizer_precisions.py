"""Every optimizer in mixed precision and under compression, held to what AdamW is held to: minutes, left out unless asked for."""

from __future__ import annotations

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.spec import FRAMEWORKS, Point
from hvbench.tracing import TracedPoint, compare_points, trace_points
from tests.parity.points import CONFIGURATIONS, OPTIMIZERS, STEPS, WORLD_SIZES, optimizer_point

LOWER = [configuration for configuration in CONFIGURATIONS if configuration[1:] != ("fp32", "none")]

pytestmark = pytest.mark.long


def lower_point(framework: str, optimizer: str, configuration: tuple[int, str, str]) -> Point:
    world_size, precision, compression = configuration
    return optimizer_point(framework, optimizer, world_size, precision=precision, compression=compression)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> dict[Point, TracedPoint]:
    """Every point's trace on every rank."""
    run_path = tmp_path_factory.mktemp("lower")
    (run_path / "logs").mkdir()
    places = [(framework, optimizer, each) for framework in FRAMEWORKS for optimizer in OPTIMIZERS for each in LOWER]
    with open_launch(resolve_context(max(WORLD_SIZES)), run_path=run_path) as coordinator:
        return trace_points(coordinator, [lower_point(*place) for place in places], steps=STEPS)


@pytest.mark.parametrize("configuration", LOWER, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twins_agree_in_lower_precision(lower, optimizer, configuration):
    parity = compare_points(*(lower[lower_point(framework, optimizer, configuration)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
