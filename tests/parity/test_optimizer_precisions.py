"""Every optimizer in mixed precision and under compression, proven as a sweep proves it: minutes, left out unless asked for."""

from __future__ import annotations

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity.horizon import prove_pairs
from hvbench.parity.pairs import Parity, PointPair
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.parity.points import CONFIGURATIONS, OPTIMIZERS, STEPS, WORLD_SIZES, optimizer_point

LOWER = [configuration for configuration in CONFIGURATIONS if configuration[1:] != ("fp32", "none")]
LEAST_UPDATES = 3  # SGD at these rates makes so much of 16 bits that few updates can be compared

pytestmark = pytest.mark.long


def lower_point(framework: str, optimizer: str, configuration: tuple[int, str, str]) -> Point:
    world_size, precision, compression = configuration
    return optimizer_point(framework, optimizer, world_size, precision=precision, compression=compression)


def lower_pair(optimizer: str, configuration: tuple[int, str, str]) -> PointPair:
    first, second = (lower_point(framework, optimizer, configuration) for framework in FRAMEWORKS)
    return first, second


@pytest.fixture(scope="module", params=OPTIMIZERS)
def proofs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, str, str], Parity]:
    """Of one optimizer: every configuration's comparison, on every rank."""
    run_path = tmp_path_factory.mktemp("lower")
    (run_path / "logs").mkdir()
    pairs = {lower_pair(request.param, each): each for each in LOWER}
    with open_launch(resolve_context(max(WORLD_SIZES)), run_path=run_path) as coordinator:
        return {pairs[parity.points]: parity for parity in prove_pairs(coordinator, list(pairs), steps=STEPS)}


@pytest.mark.parametrize("configuration", LOWER, ids=str)
def test_twins_agree_in_lower_precision(
    proofs: dict[tuple[int, str, str], Parity], configuration: tuple[int, str, str]
) -> None:
    parity = proofs[configuration]
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.updates >= LEAST_UPDATES
