"""What grows with a run grows in proportion to it: twice as many points, launches or steps take twice as many calls.

Calls are counted, C functions included, and no clock is read. Comparing every point with every other would count four times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import evaluation_frame, point_frame, step_frame
from hvbench.analysis.topics.parity.agreement import check_agreement
from hvbench.comparison.compare import compare
from hvbench.comparison.result import LaunchSet
from hvbench.plan.jobs import Job, in_order_of_groups, make_plan, number_places, worker_group
from hvbench.plan.repeats import next_jobs
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.labels import distinguish
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.tracking.export import make_curves
from tests.unit.sample_records import make_evaluation, make_rank, make_record


def count_calls(work: Callable[[], object]) -> int:
    """Calls of Python and of C functions while `work` runs, after it has run once."""
    work()
    calls = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def points(number: int) -> list[Point]:
    """Points of which no two can share workers."""
    return [
        Point(model="tiny", data="synthetic", fusion_threshold_bytes=1024 * each, world_size=2)
        for each in range(number)
    ]


def launches(number: int, *, steps: int = 5) -> list[Record]:
    rank = make_rank(
        step_seconds=[0.1] * steps,
        evaluations=[make_evaluation(step, 5.0, training_seconds=0.1 * step) for step in range(0, steps, 5)],
    )
    return [
        make_record([rank], framework=name, repeat=repeat)
        for repeat in range(number)
        for name in ("pytorch", "tensorflow")
    ]


def compare_sets(records: Sequence[Record]) -> object:
    return compare([LaunchSet(name=name, records=records, job=name) for name in ("a", "b")])


def read(number: int) -> Callable[[], object]:
    def work() -> object:
        return RunFolder(Path("run")).read_records()

    folder = RunFolder(Path("run"))
    folder.open_for_writing()
    folder.write_run({})
    for record in launches(number):
        if not (folder.records_path / f"{record.key}.json").exists():
            folder.write_record(record)
    folder.close()
    return work


# What is done, from how many of what: a function of the number to what is to be counted.
GROWING: dict[str, tuple[int, Callable[[int], Callable[[], object]]]] = {
    "plan": (60, lambda n: lambda: make_plan(points(n), MeasureSettings(), world_size=2)),
    "places": (60, lambda n: lambda: number_places(points(n), [Job(point=each, repeat=0) for each in points(n)])),
    "names of points": (60, lambda n: lambda: distinguish(points(n))),
    "another round": (60, lambda n: lambda: next_jobs([[each] for each in points(n)], [], rest_seconds=1e9)),
    "records of a run": (20, read),
    "rows of launches": (20, lambda n: lambda: point_frame(launches(n))),
    "rows of steps": (200, lambda n: lambda: step_frame(launches(1, steps=n))),
    "rows of evaluations": (200, lambda n: lambda: evaluation_frame(launches(1, steps=n))),
    "curves of a tracker": (200, lambda n: lambda: make_curves(launches(1, steps=n)[0], start=0.0)),
    "agreement": (20, lambda n: lambda: check_agreement(launches(n))),
    "a comparison, launches": (20, lambda n: lambda: compare_sets(launches(n))),
    "a comparison, steps": (200, lambda n: lambda: compare_sets(launches(2, steps=n))),
}


@pytest.mark.parametrize(("number", "make"), GROWING.values(), ids=GROWING)
def test_twice_as_many_take_about_twice_as_many_calls(
    number: int, make: Callable[[int], Callable[[], object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    once, twice = (count_calls(make(factor * number)) for factor in (1, 2))
    assert twice < 2.5 * once


def test_points_that_share_workers_stand_together_in_the_order_of_their_groups() -> None:
    mixed = [Point(model="tiny", framework=name, seed=seed) for seed in range(3) for name in ("tensorflow", "pytorch")]
    ordered = in_order_of_groups(mixed)
    assert [(each.framework, each.seed) for each in ordered] == [
        (name, seed) for name in ("tensorflow", "pytorch") for seed in range(3)
    ]
    groups = list(map(worker_group, ordered))
    assert groups == sorted(groups, key=groups.index)
