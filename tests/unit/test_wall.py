"""What a run's wall time was spent on: values worked out by hand."""

from __future__ import annotations

import time

import pytest

from hvbench.analysis.frame.wall import REST, TIMED, spend_wall, wall_seconds
from hvbench.analysis.report.quality import describe_wall_time
from hvbench.records.record import Record
from hvbench.worker.progress import WAITING, PhaseClock, process_seconds
from tests.unit.sample_records import make_evaluation, make_rank, make_record


def launch(started_at: str, duration_seconds: float, *, phases: dict[str, float] | None = None, **changes) -> Record:
    """Two ranks, the second the slower: a first step of 2 s, another warm-up step of 1 s, four timed steps of 1 s."""
    ranks = [
        make_rank(rank, step_seconds=[2.0, 1.0, *[1.0 - 0.1 * (1 - rank)] * 4], phase_seconds=phases or {}, **changes)
        for rank in range(2)
    ]
    record = make_record(ranks, warmup_steps=2)
    return record.model_copy(update={"started_at": started_at, "duration_seconds": duration_seconds})


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([("00:00:10", 5.0)], 5.0),
        ([("00:00:10", 5.0), ("00:00:20", 5.0)], 15.0),  # what lies between launches belongs to the run
        ([("00:00:20", 5.0), ("00:00:10", 5.0)], 15.0),  # in whatever order the files were read
        ([("00:00:10", 20.0), ("00:00:12", 5.0)], 20.0),  # launches that take turns
        ([("00:00:10", 20.0), ("00:00:12", 30.0)], 32.0),
        ([("00:00:10", 5.0), ("03:00:00", 7.0)], 12.0),  # a run that was resumed
    ],
)
def test_the_wall_is_what_a_clock_beside_the_run_shows(spans: list[tuple[str, float]], seconds: float) -> None:
    assert wall_seconds([launch(f"2026-01-02T{begun}+00:00", length) for begun, length in spans]) == seconds


def test_times_that_no_clock_has_shown_are_left_out() -> None:
    records = [launch("noon", 5.0), launch("9999-12-31T23:59:59+00:00", 1e14), launch("2026-01-02T00:00:00+00:00", 3.0)]
    assert wall_seconds(records) == 3.0
    assert spend_wall([launch("noon", 5.0)]) is None and describe_wall_time([]) == []


def test_parts_are_those_of_the_slowest_rank_and_the_rest_is_what_no_clock_says() -> None:
    """20 s: 4 s of timed steps, a first step of 2, a warm-up step of 1, 5 of ceilings, 3 of starting, 1 of text, 0.25 of the build, 0.5 of an evaluation."""
    phases = {"start": 3.0, "ceiling": 5.0, "data": 1.0, "turn": 99.0, "measure": 8.0}
    record = launch("2026-01-02T00:00:00+00:00", 20.0, phases=phases, evaluations=[make_evaluation(0, 5.0)])
    wall = spend_wall([record])
    assert wall.parts == {
        "ceilings": 5.0, TIMED: 4.0, REST: 3.25, "starting workers": 3.0, "first steps": 2.0, "other warm-up steps": 1.0,
        "reading the text": 1.0, "evaluations": 0.5, "building models": 0.25,
    }  # fmt: skip
    assert list(wall.parts)[:3] == ["ceilings", TIMED, REST]
    assert describe_wall_time([record]) == [
        "20 % of the 20 s from the first launch's begin to the last one's end were timed steps; ceilings 25 %, the rest 16 %, "
        "starting workers 15 %, first steps 10 %, other warm-up steps 5 %, reading the text 5 %, evaluations 2.5 %, "
        "building models 1.2 %."
    ]


def test_launches_in_turns_share_the_wall() -> None:
    """Two launches over the same 20 s, half of which each waited: 4 s of timed steps each, of 20."""
    both = [launch("2026-01-02T00:00:00+00:00", 10.0, phases={"turn": 10.0}) for _ in range(2)]
    both = [record.model_copy(update={"in_turns": True}) for record in both]
    assert spend_wall(both).timed_share == pytest.approx(8 / 20)


def test_a_clock_adds_up_each_phase_and_begins_anew_for_the_next_job() -> None:
    begun = time.monotonic()
    clock = PhaseClock("start")
    for phase in ("ceiling", "measure", "ceiling"):
        clock.enter(phase)
        time.sleep(0.01)
    first, elapsed = clock.take(), time.monotonic() - begun
    assert list(first) == ["start", "ceiling", "measure"] and first["ceiling"] >= 0.02 and first["measure"] >= 0.01
    assert first["start"] >= process_seconds() - 1.0 > -1.0
    assert first["ceiling"] + first["measure"] <= elapsed
    clock.enter("ceiling")
    assert set(clock.take()) == {WAITING, "ceiling"}
