"""Which points are launched again, by hand-computed intervals, and in which order."""

from __future__ import annotations

import math

import pytest

from hvbench.plan.jobs import Job
from hvbench.plan.repeats import (
    MAX_FAILURES_IN_A_ROW,
    extra_keys,
    next_jobs,
    points_to_repeat,
    relative_half_widths,
    widest_look,
)
from hvbench.records.record import Outcome, Record
from hvbench.spec.point import Point
from tests.unit.sample_records import make_rank, make_record


def launches(*seconds: float, start: int = 0, duration_seconds: float = 3.0, **point) -> list[Record]:
    """One launch a value: one rank, one timed step of so many seconds."""
    records = [
        make_record([make_rank(step_seconds=[9.0, value])], repeat=start + repeat, **point)
        for repeat, value in enumerate(seconds)
    ]
    return [record.model_copy(update={"duration_seconds": duration_seconds}) for record in records]


def lost(repeat: int, status: str = "failed", **point) -> Record:
    return make_record([], status=status, repeat=repeat, **{"world_size": 1, **point})


def ids(points: list[Point]) -> list[str]:
    return [point.point_id for point in points]


def wide(records: list[Record], *, target: float) -> list[str]:
    points = list({record.point_id: record.point for record in records}.values())
    return ids(points_to_repeat(points, records, target=target))


def test_the_width_is_that_of_the_interval_of_tokens_per_second() -> None:
    """1, e^0.01, e^-0.01, 1 and 1 s: the widest of the last three looks is at n = 3, s = 0.01, t(0.975, 2) = 4.3027."""
    records = launches(1.0, math.exp(0.01), math.exp(-0.01), 1.0, 1.0)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    assert relative_half_widths(records)[records[0].point_id] == pytest.approx(math.sinh(half))
    assert wide(records, target=0.0248) == [records[0].point_id]
    assert wide(records, target=0.0249) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_fewer_than_five_launches_are_never_enough(count: int) -> None:
    """Two launches that agree exactly have an interval of no width, and say next to nothing."""
    assert wide(launches(*[1.0] * count), target=0.5)
    assert not wide(launches(*[1.0] * 5), target=0.5)


def test_an_interval_has_to_be_narrow_after_each_of_the_last_three_launches() -> None:
    """One launch of 1.05 among others of 1: ± 7.0, 3.9, 2.7, 2.1, 1.7 % at n = 3 to 7."""
    rates = [1.0, 1.05, *[1.0] * 5]
    assert [widest_look(rates[:count]) for count in (5, 6, 7)] == pytest.approx([0.0700, 0.0388, 0.0271], abs=1e-4)
    assert widest_look(rates[:4]) == math.inf


def test_only_the_wide_points_are_chosen_in_their_order() -> None:
    narrow = launches(1.0, 1.0, 1.0, 1.0, 1.0, seed=1)
    broad = [*launches(1.0, 2.0, 4.0, seed=2), *launches(1.0, 3.0, 9.0, seed=0)]
    assert wide([*broad, *narrow], target=0.02) == [broad[0].point_id, broad[3].point_id]


def test_points_that_take_turns_are_launched_again_together_but_for_one_that_is_given_up() -> None:
    broad, narrow = launches(1.0, 2.0, 4.0, seed=1), launches(*[1.0] * 5, seed=2)
    failed = [lost(repeat, seed=3) for repeat in range(MAX_FAILURES_IN_A_ROW)]
    points = [same[0].point for same in (broad, narrow, failed)]
    records = [*broad, *narrow, *failed]
    assert points_to_repeat(points, records, target=0.02) == points[:1]
    assert points_to_repeat(points, records, target=0.02, together=lambda point: "all") == points[:2]


def test_a_point_without_a_record_is_chosen() -> None:
    point = Point(model="tiny", world_size=1)
    assert points_to_repeat([point], [], target=0.1) == [point]


def test_a_point_that_fails_again_and_again_is_given_up() -> None:
    failures = [lost(repeat) for repeat in range(MAX_FAILURES_IN_A_ROW)]
    assert wide(failures[:-1], target=0.02) and not wide(failures, target=0.02)
    recovered = [*failures, *launches(1.0, start=MAX_FAILURES_IN_A_ROW)]
    assert wide(recovered, target=0.02)


def test_an_interrupt_is_no_failure_and_its_launch_is_made_again() -> None:
    records = [lost(repeat, "interrupted") for repeat in range(MAX_FAILURES_IN_A_ROW)]
    assert wide(records, target=0.02)
    stopped = [*launches(1.0, 2.0), lost(2, "interrupted")]
    assert [job.repeat for job in next_jobs([stopped[0].point], stopped, rest_seconds=100)] == [2]


def test_one_more_launch_of_each_point_grouped_by_framework() -> None:
    names = [(seed, name) for seed in (0, 1) for name in ("tensorflow", "pytorch")]
    points = [Point(model="tiny", world_size=1, framework=name, seed=seed) for seed, name in names]
    records = [each for point in points for each in launches(1.0, 2.0, framework=point.framework, seed=point.seed)]
    jobs = next_jobs(points, records, rest_seconds=100)
    assert jobs == [Job(point=points[index], repeat=2) for index in (0, 2, 1, 3)]
    records += [
        each for job in jobs for each in launches(1.0, start=2, framework=job.point.framework, seed=job.point.seed)
    ]
    jobs = next_jobs(points, records, rest_seconds=100)
    assert jobs == [Job(point=points[index], repeat=3) for index in (3, 1, 2, 0)], "every other round runs backwards"


def test_what_does_not_fit_into_the_budget_is_left_out_the_best_known_first() -> None:
    known = launches(1.0, 2.0, 4.0, seed=0)
    less_known = launches(1.0, 2.0, seed=1)
    slow = launches(1.0, seed=2, duration_seconds=50.0)
    points = [each[0].point for each in (known, less_known, slow)]
    records = [*known, *less_known, *slow]

    def chosen(rest_seconds: float) -> list[int]:
        return [job.point.seed for job in next_jobs(points, records, rest_seconds=rest_seconds)]

    assert sorted(chosen(60)) == [0, 1, 2]
    assert sorted(chosen(53)) == [1, 2]
    assert sorted(chosen(7)) == [0, 1]
    assert chosen(4) == [1]
    assert chosen(0) == chosen(-5) == []


def test_launches_that_an_earlier_session_added_are_found_in_its_jobs() -> None:
    run = {"jobs": ["a.r1x.r0", "a.r1x.r2", "b.r3", "no number", 7]}
    assert extra_keys(run, repeats=2) == [("a.r1x", 2), ("b", 3)]
    assert extra_keys({"jobs": None}, repeats=1) == []


def test_an_outcome_that_is_not_ok_counts_once_whatever_it_is() -> None:
    failures = [
        record.model_copy(update={"outcome": Outcome(status=status)})
        for record, status in zip([lost(0), lost(1), lost(2)], ("oom", "timeout", "diverged"), strict=True)
    ]
    assert not wide(failures, target=0.02)
