"""The tuner finds knobs that help, proves it in pairs of launches that the search has not seen, and keeps to its budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from hvbench.cli.commands import hvbench
from hvbench.errors import UsageError
from hvbench.plan import Job
from hvbench.record import Record
from hvbench.spec import Point
from hvbench.tuning import CHOICES, DEFAULT_KNOBS, Tuned, describe_gain, describe_knobs, propose, step_seconds, tune
from tests.unit.sample_records import make_rank, make_record

BASE = Point(model="tiny", world_size=2)


class Machine:
    """Launches of a second each, with steps of what a formula says and noise; it keeps count and time."""

    def __init__(self, gain: float, *, noise: float = 0.02) -> None:
        self.gain = gain
        self.noise = noise
        self.random = np.random.default_rng(4)
        self.jobs: list[Job] = []

    def clock(self) -> float:
        return float(len(self.jobs))

    def launch(self, job: Job) -> Record:
        self.jobs.append(job)
        is_good = job.point.cycle_time_seconds == 5e-4
        seconds = 0.4 * (1 - self.gain * is_good) * math.exp(self.noise * self.random.standard_normal())
        seconds *= 1.2 if job.point.fusion_threshold_bytes == 0 else 1.0
        ranks = [make_rank(rank, step_seconds=[3.0, *[seconds] * 3]) for rank in range(2)]
        return make_record(ranks, repeat=job.repeat, **job.point.model_dump())


def run(machine: Machine, *, budget_seconds: float = 60.0, pairs: int = 6) -> Tuned:
    return tune(
        BASE, knobs=DEFAULT_KNOBS, launch=machine.launch, budget_seconds=budget_seconds, pairs=pairs,
        say=lambda line: None, clock=machine.clock,
    )  # fmt: skip


def test_a_knob_that_helps_is_found_and_proven() -> None:
    machine = Machine(0.2)
    tuned = run(machine)
    assert tuned.knobs["cycle_time_seconds"] == 5e-4 and tuned.knobs["fusion_threshold_bytes"] != 0
    assert tuned.ratio.low < 0.8 < tuned.ratio.high < 1
    assert "shorter than by default" in describe_gain(tuned) and "noise" not in describe_gain(tuned)
    keys = [job.key for job in machine.jobs]
    assert len(set(keys)) == len(keys), "every launch has a record of its own"
    assert 60 <= len(keys) <= 61 + 1, "the budget is used, and kept to but for the pair that was running"


def test_noise_is_not_sold_as_a_gain() -> None:
    tuned = run(Machine(0.0))
    assert tuned.ratio is None or tuned.ratio.low < 1 < tuned.ratio.high * 1.05
    if tuned.ratio is not None and tuned.ratio.high >= 1:
        assert "not told from noise" in describe_gain(tuned)


def test_the_default_is_tried_first_and_the_pairs_take_turns() -> None:
    machine = Machine(0.2)
    tuned = run(machine, budget_seconds=1.0, pairs=4)
    assert machine.jobs[0].point == BASE and tuned.trials == 4
    if tuned.ratio is not None:
        pairs = [{job.point for job in machine.jobs[i : i + 2]} for i in range(4, 12, 2)]
        assert len(machine.jobs) == 4 + 8 and all(pair == {BASE, tuned.point} for pair in pairs)


def test_a_launch_that_fails_is_never_the_best() -> None:
    failed = make_record([], status="oom", message="no memory", world_size=2)
    assert step_seconds(failed) == math.inf
    tuned = tune(
        BASE, knobs=DEFAULT_KNOBS, launch=lambda job: failed, budget_seconds=1.0, pairs=1, say=lambda line: None
    )
    assert tuned.ratio is None and describe_gain(tuned) == "nothing was found that beats the default"


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
    assert describe_knobs({"fusion_threshold_bytes": None, "controller": "mpi"}) == "fusion_threshold_bytes=default controller=mpi"


@pytest.mark.parametrize("name", DEFAULT_KNOBS)
def test_the_default_knobs_are_horovods(name: str) -> None:
    assert name in CHOICES


def test_a_strategy_without_knobs_is_refused_in_one_line() -> None:
    result = CliRunner().invoke(hvbench, ["tune", "strategy=native", "--np", "2"])
    assert isinstance(result.exception, UsageError)
    assert "the knobs are Horovod's, and the strategy is native" in str(result.exception)
