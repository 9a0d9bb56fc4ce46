"""Which points of a sweep are measured side by side, in which order, and what is said of those that are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hvbench.errors import UsageError
from hvbench.plan.estimates import estimate_rank_bytes
from hvbench.plan.jobs import Job
from hvbench.plan.turns import MEMORY_SHARE, Site, Turns, decide_turns
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings

HOST = Site(is_single_host=True, memory_bytes=2**40, has_gpu=False)
TITLES = "PyTorch and TensorFlow"
ON = f"{TITLES} are measured side by side: they live at the same time and take turns, step by step"
OFF = "the frameworks are measured one after the other: "


def points(*frameworks: str, **fields: Any) -> list[Point]:
    return [Point(model="tiny", framework=name, world_size=2, **fields) for name in frameworks or FRAMEWORKS]


def decide(chosen: list[Point], *, turns: Any = "auto", site: Site = HOST) -> Turns:
    return decide_turns(chosen, MeasureSettings(turns=turns), site, where="x.toml")


BOTH = points()
SEVERAL_HOSTS = replace(HOST, is_single_host=False)
GPU = replace(HOST, has_gpu=True)
NEEDED = sum(2 * estimate_rank_bytes(point) for point in BOTH)
FULL, ROOMY = (replace(HOST, memory_bytes=round(NEEDED / MEMORY_SHARE) + spare) for spare in (-1000, 1000))


@pytest.mark.parametrize(
    ("chosen", "turns", "site", "together", "line"),
    [
        (BOTH, "auto", HOST, 1, ON),
        (BOTH, True, HOST, 1, ON),
        (BOTH, False, HOST, 0, f"{OFF}turns = false"),
        (points("pytorch"), "auto", HOST, 0, None),  # nobody to take turns with
        (points("pytorch"), True, HOST, 0, None),
        (BOTH, "auto", SEVERAL_HOSTS, 0, f"{OFF}their ranks are on several hosts"),
        (BOTH, "auto", GPU, 0, f"{OFF}both would need the GPU's memory at the same time"),
        (points(device="cpu"), "auto", GPU, 1, ON),
        (points(strategy="parameter_server"), "auto", HOST, 0, f"{OFF}a parameter server takes no turns"),
        (points(controller="mpi"), "auto", HOST, 0, f"{OFF}workers that mpirun starts take no turns"),
        (points(strategy="native"), "auto", HOST, 1, ON),
        (BOTH, "auto", ROOMY, 1, ON),
        (BOTH, "auto", replace(HOST, is_arm=True), 0, None),  # the turns are those of hvbench ab
        (BOTH, True, replace(HOST, is_arm=True), 0, None),
        (
            [*BOTH, *points(controller="mpi"), *points("tensorflow", strategy="parameter_server")],
            "auto",
            HOST,
            1,
            f"{ON}, but for 2 points: workers that mpirun starts take no turns",
        ),
    ],
)
def test_what_takes_turns_and_what_is_said(
    chosen: list[Point], turns: Any, site: Site, together: int, line: str | None
) -> None:
    found = decide(chosen, turns=turns, site=site)
    assert (len(found.sides), found.line) == (together, line)


def test_where_memory_would_not_hold_all_workers_they_live_one_after_the_other() -> None:
    found = decide(BOTH, site=FULL)
    assert not found.sides
    assert found.line.startswith(f"{OFF}the workers of all frameworks at the same time should need about ")
    assert found.line.endswith(" GiB of this host's 4.3 GiB") or " of this host's " in found.line


@pytest.mark.parametrize(
    ("chosen", "site", "reason"),
    [
        (BOTH, SEVERAL_HOSTS, "their ranks are on several hosts"),
        (points(strategy="parameter_server"), HOST, "a parameter server takes no turns"),
        ([*BOTH, *points(controller="mpi")], HOST, "workers that mpirun starts take no turns"),
        (BOTH, FULL, "the workers of all frameworks at the same time should need "),
    ],
)
def test_turns_that_are_asked_for_and_cannot_be_taken_are_one_line(
    chosen: list[Point], site: Site, reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        decide(chosen, turns=True, site=site)
    assert str(caught.value).startswith(f"x.toml: turns = true, but {reason}") and "\n" not in str(caught.value)


def test_jobs_of_a_stretch_are_together_configuration_by_configuration() -> None:
    """Frameworks as the outer axis, two world sizes, and one configuration that only PyTorch has."""
    chosen = [
        Point(model="tiny", framework=name, world_size=size, seed=seed)
        for name in FRAMEWORKS
        for size in (2, 1)
        for seed in (0, 1)
    ]
    own = Point(model="tiny", world_size=2, seed=2)
    jobs = [Job(point=point, repeat=repeat) for repeat in (0, 1) for point in [*chosen, own]]
    turns = decide(chosen)
    arranged = turns.arrange(jobs)
    assert sorted(arranged, key=jobs.index) == jobs
    first, second = FRAMEWORKS
    expected = [
        *((2, 0, first), (2, 0, second), (2, 1, first), (2, 1, second), (2, 2, first)),
        *((1, 0, first), (1, 0, second), (1, 1, first), (1, 1, second)),
    ]
    found = [(job.repeat, job.point.world_size, job.point.seed, job.point.framework) for job in arranged]
    assert found == [(repeat, *each) for repeat in (0, 1) for each in expected]
    assert turns.arrange(arranged) == arranged
    places = turns.number_places(arranged)
    pairs = [(places[one.key], places[two.key]) for one, two in zip(arranged, arranged[1:], strict=False)]
    assert pairs[0][0] == pairs[0][1] < pairs[2][0] == pairs[2][1] < pairs[4][0], "one place a configuration, in order"


def test_a_choice_of_one_framework_is_a_configuration_of_its_own() -> None:
    chosen = [*BOTH, BOTH[0].model_copy(update={"gemm": "onednn"})]
    turns = decide(chosen)
    places = turns.number_places(turns.arrange([Job(point=point, repeat=0) for point in chosen]))
    assert len(places) == 3


def test_without_turns_the_order_of_the_plan_stays() -> None:
    jobs = [Job(point=point, repeat=repeat) for repeat in (0, 1) for point in BOTH]
    assert Turns().arrange(jobs) == jobs and Turns().number_places(jobs) == {}


@pytest.mark.parametrize("value", ["on", "true", 2, None])
def test_another_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="turns"):
        MeasureSettings(turns=value)
