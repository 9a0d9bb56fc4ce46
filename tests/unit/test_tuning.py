"""The tuner finds knobs that help, proves it in pairs of launches that the search has not seen, and keeps to its budget."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.cli.group import hvbench
from hvbench.errors import UsageError
from hvbench.plan.jobs import Job
from hvbench.records.record import Record
from hvbench.spec.labels import describe_values
from hvbench.spec.point import Point
from hvbench.sweep.tune import (
    CHOICES,
    DEFAULT_KNOBS,
    SEARCH,
    Launches,
    Search,
    Tuned,
    Tuning,
    describe_gain,
    propose,
    read_search,
    step_seconds,
    tune,
)  # fmt: skip
from tests.unit.sample_records import make_rank, make_record

BASE = Point(model="tiny", world_size=2)


class Machine:
    """Launches of a second each, with steps of what a formula says and noise; it keeps count and time."""

    def __init__(self, gain: float, *, noise: float = 0.02) -> None:
        self.gain = gain
        self.noise = noise
        self.jobs: list[Job] = []

    def clock(self) -> float:
        return float(len(self.jobs))

    def launch(self, job: Job) -> Record:
        self.jobs.append(job)
        random = np.random.default_rng(zlib.crc32(job.key.encode()))
        is_good = job.point.cycle_time_seconds == 5e-4
        seconds = 0.4 * (1 - self.gain * is_good) * math.exp(self.noise * random.standard_normal())
        seconds *= 1.2 if job.point.fusion_threshold_bytes == 0 else 1.0
        ranks = [make_rank(rank, step_seconds=[3.0, *[seconds] * 3]) for rank in range(2)]
        return make_record(ranks, repeat=job.repeat, **job.point.model_dump())


def run(
    machine: Machine,
    *,
    budget_seconds: float = 60.0,
    pairs: int = 6,
    recorded: dict[str, Record] | None = None,
    **session: Any,
) -> Tuned:
    tuning = Tuning(base=BASE, knobs=DEFAULT_KNOBS, budget_seconds=budget_seconds, pairs=pairs)
    launches = Launches(machine.launch, recorded=recorded or {}, clock=machine.clock)
    return tune(tuning, launches, say=lambda line: None, **session)


def test_a_knob_that_helps_is_found_and_proven() -> None:
    machine = Machine(0.2)
    tuned = run(machine)
    assert tuned.knobs["cycle_time_seconds"] == 5e-4 and tuned.knobs["fusion_threshold_bytes"] != 0
    assert tuned.ratio.low < 0.8 < tuned.ratio.high < 1
    assert "shorter than by default" in describe_gain(tuned) and describe_gain(tuned).endswith(" pairs)")
    keys = [job.key for job in machine.jobs]
    assert len(set(keys)) == len(keys), "every launch has a record of its own"
    assert 60 <= len(keys) <= 61 + 1, "the budget is used, and kept to but for the pair that was running"


def test_a_small_budget_leaves_time_for_the_pairs() -> None:
    machine = Machine(0.2)
    tuned = run(machine, budget_seconds=20.0, pairs=6)
    assert tuned.trials == 8 and len(machine.jobs) == (8 if tuned.ratio is None else 20)


def test_noise_is_not_sold_as_a_gain() -> None:
    tuned = run(Machine(0.0))
    assert tuned.ratio is None or tuned.ratio.low < 1 < tuned.ratio.high * 1.05
    if tuned.ratio is not None and tuned.ratio.high >= 1:
        assert describe_gain(tuned).endswith((" pairs cannot say which is faster", "): within 3 % of each other"))


@pytest.mark.parametrize(
    ("call", "behind"),
    [
        (Call.SLOWER, ""),  # of step times: the smaller one
        (Call.FASTER, ""),
        (Call.EQUAL, ": within 3 % of each other"),
        (Call.OPEN, ": 6 pairs cannot say which is faster"),
    ],
)
def test_a_gain_is_called_as_the_one_rule_calls_it(call: Call, behind: str) -> None:
    ratio = Contrast(ratio=0.98, low=0.97, high=0.99, rounds=6, p_value=0.01, call=call)
    tuned = Tuned(point=BASE, knobs={}, trials=4, ratio=ratio)
    figures = "steps 2.0 % shorter than by default (95 % interval of the gain +1.0 to +3.0 %, n = 6 pairs)"
    assert describe_gain(tuned) == f"{figures}{behind}"


def test_the_default_is_tried_first_and_the_pairs_take_turns() -> None:
    machine = Machine(0.2)
    tuned = run(machine, budget_seconds=1.0, pairs=4)
    assert machine.jobs[0].point == BASE and tuned.trials == 4
    if tuned.ratio is not None:
        pairs = [{job.point for job in machine.jobs[i : i + 2]} for i in range(4, 12, 2)]
        assert len(machine.jobs) == 4 + 8 and all(pair == {BASE, tuned.point} for pair in pairs)


class Stop(Exception):
    """Ctrl-C."""


class Recorder(Machine):
    """Its records outlive it; it is stopped after so many launches."""

    def __init__(self, records: dict[str, Record], *, stop_after: int) -> None:
        super().__init__(0.2)
        self.records = records
        self.stop_after = stop_after
        self.settled: list[int] = []

    def launch(self, job: Job) -> Record:
        if len(self.jobs) == self.stop_after:
            raise Stop
        assert job.key not in self.records, "launched twice"
        self.records[job.key] = super().launch(job)
        return self.records[job.key]


@pytest.mark.parametrize("stop_after", [1, 5, 36, 37, 38, 45])  # within the search, at its end, in a pair and after one
def test_a_session_that_goes_on_repeats_no_launch_and_finds_the_same(stop_after: int) -> None:
    whole = Machine(0.2)
    expected = run(whole)
    records: dict[str, Record] = {}
    first = Recorder(records, stop_after=stop_after)
    with pytest.raises(Stop):
        run(first, settle=first.settled.append)
    settled = first.settled[0] if first.settled else None
    assert settled == (expected.trials if stop_after >= expected.trials else None)
    second = Recorder(records, stop_after=1000)
    tuned = run(second, recorded=dict(records), settled=settled, settle=second.settled.append)
    assert tuned.trials == second.settled[0] == (settled or tuned.trials) >= stop_after * (settled is None)
    assert tuned.knobs == expected.knobs and tuned.ratio.low < 0.8 < tuned.ratio.high < 1
    begun = [job for job in whole.jobs[:stop_after]]
    assert first.jobs == begun and not {job.key for job in second.jobs} & {job.key for job in begun}
    if settled is not None:
        pairs = [second.jobs[i : i + 2] for i in range(0, len(second.jobs), 2)]
        assert all({job.point for job in pair} == {BASE, tuned.point} for pair in pairs), (
            "half a pair is launched anew, whole"
        )
        assert tuned.ratio.rounds == (stop_after - settled) // 2 + len(pairs), "whole pairs of before count"


@pytest.mark.parametrize("kept", [{"knobs": 3}, {"knobs": [1]}, {"knobs": ["controller"], "trials": 0}, [], None, "x"])
def test_a_search_that_cannot_be_read_is_one_line(kept: Any) -> None:
    with pytest.raises(UsageError, match="^somewhere: run.json: tune: .*; start a new run$"):
        read_search({SEARCH: kept}, where=Path("somewhere"))


def test_a_search_is_read_back() -> None:
    search = Search(knobs=DEFAULT_KNOBS, trials=7)
    assert read_search({SEARCH: search.model_dump(mode="json")}, where=Path()) == search
    assert read_search({}, where=Path()) is None


def test_force_goes_with_resume() -> None:
    result = CliRunner().invoke(hvbench, ["tune", "--force", "--np", "2"])
    assert "--force goes with --resume" in result.output + str(result.exception)


def test_a_launch_that_fails_is_never_the_best() -> None:
    failed = make_record([], status="oom", message="no memory", world_size=2)
    assert step_seconds(failed) == math.inf
    tuning = Tuning(base=BASE, knobs=DEFAULT_KNOBS, budget_seconds=1.0, pairs=1)
    tuned = tune(tuning, Launches(lambda job: failed), say=lambda line: None)
    assert tuned.ratio is None and describe_gain(tuned) == "nothing was found that beats the default"
    assert tuned.missing == f"none of the {tuned.trials} launches ended in ok"


def test_what_makes_no_sense_is_not_proposed() -> None:
    served = Point(model="tiny", world_size=2, reduction="adasum", controller="mpi")
    points = propose(served, knobs=("compression",), seed=0)
    seen = set()
    for _ in range(8):
        point, tell = next(points)
        seen.add(point.compression)
        tell(1.0)
    assert seen <= {"none", "fp16"}, "bf16 knows no adasum"


def test_every_choice_is_a_point() -> None:
    for name, values in CHOICES.items():
        for value in values:
            assert getattr(Point(**{name: value}), name) == value
        assert Point.model_fields[name].default in values


def test_knobs_are_named() -> None:
    assert (
        describe_values({"fusion_threshold_bytes": None, "controller": "mpi"})
        == "fusion_threshold_bytes=default controller=mpi"
    )


@pytest.mark.parametrize("name", DEFAULT_KNOBS)
def test_the_default_knobs_are_horovods(name: str) -> None:
    assert name in CHOICES


def test_a_strategy_without_knobs_is_refused_in_one_line() -> None:
    result = CliRunner().invoke(hvbench, ["tune", "strategy=native", "--np", "2"])
    assert isinstance(result.exception, UsageError)
    assert "the knobs are Horovod's, and the strategy is native" in str(result.exception)
