"""Twins agree, and a broken one is seen, whatever instructions the libraries multiply with: minutes, left out unless asked for.

Each instruction set sums in another order, so each is another draw of all rounding errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity.compare import worst
from hvbench.parity.pairs import compare_points
from hvbench.parity.run import TracedPoint, trace_points
from hvbench.records.environment import cpu_flags
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.parity.points import (
    BROKEN,
    CONFIGURATIONS,
    MISTAKES,
    STEPS,
    WORLD_SIZES,
    broken_point,
    configured_point,
)

# Name -> the processor flag that it takes, and what limits the libraries to it.
INSTRUCTION_SETS = {
    "sse4.1": (
        "sse4_1",
        {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "TF_ENABLE_ONEDNN_OPTS": "0",
        },
    ),
    "avx2": ("avx2", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "avx512": ("avx512bw", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"}),
    "every": ("", {}),
}
SEEDS = (0, 1, 2)

pytestmark = pytest.mark.long


def seeded(point: Point, seed: int) -> Point:
    return point.model_copy(update={"seed": seed})


@pytest.fixture(scope="module")
def digests() -> list[str]:
    """Of the gradients of one point, one for each instruction set so far."""
    return []


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Point, TracedPoint]]:
    """Every configuration in both frameworks with each seed, and the mistakes, traced with one instruction set."""
    flag, settings = INSTRUCTION_SETS[request.param]
    if flag not in {"", *cpu_flags()}:
        pytest.skip(f"this processor has no {request.param}")
    run_path = tmp_path_factory.mktemp("run")
    (run_path / "logs").mkdir()
    points = [
        seeded(configured_point(framework, each), seed)
        for framework in FRAMEWORKS
        for each in CONFIGURATIONS
        for seed in SEEDS
    ]
    points += [broken_point(knobs, configuration) for configuration, knobs in MISTAKES]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        with open_launch(resolve_context(max(WORLD_SIZES)), run_path=run_path) as coordinator:
            yield trace_points(coordinator, points, steps=STEPS)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_twins_agree(limited: dict[Point, TracedPoint], configuration: tuple[int, str, str]) -> None:
    for seed in SEEDS:
        first, *others = (limited[seeded(configured_point(name, configuration), seed)] for name in FRAMEWORKS)
        for other in others:
            parity = compare_points(first, other)
            assert parity.is_proven, (seed, parity.problem or worst(parity.deviations))


@pytest.mark.parametrize(("configuration", "knobs"), MISTAKES, ids=json.dumps)
def test_a_wrong_knob_is_seen(
    limited: dict[Point, TracedPoint], configuration: tuple[int, str, str], knobs: dict[str, float]
) -> None:
    sound = next(name for name in FRAMEWORKS if name != BROKEN)
    parity = compare_points(
        limited[broken_point(knobs, configuration)], limited[configured_point(sound, configuration)]
    )
    assert parity.problem is None and not parity.is_proven


def test_the_libraries_obey_the_limit(
    limited: dict[Point, TracedPoint], digests: list[str], request: pytest.FixtureRequest
) -> None:
    """A limit that no library reads would prove nothing: without one, the same gradients have other bits than with SSE4.1."""
    sound = next(name for name in FRAMEWORKS if name != BROKEN)
    digests.append(limited[configured_point(sound, (1, "fp32", "none"))].digests[0]["gradients"])
    if request.node.callspec.params["limited"] == "every":
        assert digests[-1] != digests[0]
