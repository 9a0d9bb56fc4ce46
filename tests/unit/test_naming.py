"""A person can tell the points of a list apart, by as few words as do."""

from __future__ import annotations

from pathlib import Path

from hvbench.spec.labels import configuration_name, distinguish, short_name
from hvbench.spec.point import Point
from hvbench.spec.suite import load_suite


def test_short_names() -> None:
    point = Point(framework="tensorflow", model="tiny", compression="fp16")
    assert short_name(point) == "tensorflow-tiny-b8x1-fp32-fp16"
    assert configuration_name(point) == "tiny-b8x1-fp32-fp16"


def test_what_the_short_name_says_is_not_said_again() -> None:
    points = [
        Point(model="tiny", micro_batch_size=size, precision=precision)
        for size in (1, 2)
        for precision in ("fp32", "bf16")
    ]
    assert set(distinguish(points).values()) == {""}


def test_fields_that_differ_are_named_and_those_that_only_follow_are_not() -> None:
    points = [
        Point(model="tiny", optimizer=optimizer, autotune=tuned)
        for optimizer in ("adamw", "lamb")
        for tuned in (False, True)
    ]
    assert [distinguish(points)[point] for point in points] == [
        " autotune=false optimizer=adamw", " autotune=true optimizer=adamw", " autotune=false optimizer=lamb", " autotune=true optimizer=lamb",
    ]  # fmt: skip


def test_a_point_that_is_the_only_one_of_its_name_needs_nothing() -> None:
    points = [Point(model="tiny", cycle_time_seconds=time) for time in (None, 5e-4)]
    alone = Point(framework="tensorflow", model="tiny")
    assert distinguish([*points, alone, alone]) == {
        points[0]: " cycle_time_seconds=default",
        points[1]: " cycle_time_seconds=0.0005",
        alone: "",
    }


def test_points_of_different_micro_batches_name_what_else_differs() -> None:
    """A search tries other micro-batches of each configuration, and no short name twice."""
    points = [
        Point(model="tiny", micro_batch_size=size, recompute=what) for size, what in ((34, "none"), (47, "block"))
    ]
    assert [distinguish(points)[point] for point in points] == [" recompute=none", " recompute=block"]


def test_every_point_of_every_suite_has_a_name_of_its_own() -> None:
    for path in sorted(Path(__file__).parents[2].glob("suites/*.toml")):
        points = [point.model_copy(update={"world_size": 2}) for point in load_suite(path).points()]
        told = distinguish(points)
        assert len({short_name(point) + told[point] for point in points}) == len(set(points)), path.name
