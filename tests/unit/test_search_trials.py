"""A search over launches whose losses a formula says: what it ends early, what it finds, what it never tries twice, and what it proves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_failures
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.topics.targets import target_table
from hvbench.errors import MissingData, UsageError
from hvbench.launch.messages import Progress
from hvbench.plan.jobs import Job
from hvbench.plan.turns import Site, Turns
from hvbench.records.record import Outcome, Record
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.search.confirm import DEFAULT, FOUND, PairTurns, choose_turns, judge, launch_pairs, list_pairs
from hvbench.sweep.search.found import Confirmed, Found, Pair
from hvbench.sweep.search.goals import GOALS, LOST, NOT_REACHED, Look, find_front, reach, read_looks, worth
from hvbench.sweep.search.pruning import find_hopeless, make_halving
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.report import describe_found, describe_gain
from hvbench.sweep.search.space import read_space
from hvbench.sweep.search.trials import OnRecord, Trials, find_pace
from tests.unit.sample_records import make_evaluation, make_rank, make_record

EVERY, STEPS = 5, 120
SETTINGS = MeasureSettings(
    warmup_steps=1, steps=STEPS - 1, evaluate_every=EVERY, target_loss=3.0, stop_at_target=True, seed_per_repeat=True
)
GIVEN = {"model": "tiny", "learning_rate": 1e-3}
PACE = {"pytorch": 0.02, "tensorflow": 0.01}


def loss_of(point: Point, step: int, *, seed: int = 0) -> float:
    """Falls from 6 towards 2, quickest at a rate of 0.02; seeds differ a little."""
    speed = 0.05 * math.exp(-(math.log(point.learning_rate / 0.02) ** 2) / 8)
    speed *= 1 + 0.05 * np.random.default_rng([seed, 7]).standard_normal()
    return 2 + 4 * math.exp(-speed * step)


class Machine:
    """Trains by the formula: reports every evaluation, and ends where it is told to, or at the target."""

    def __init__(self, *, fails: Callable[[Point], bool] = lambda point: False) -> None:
        self.jobs: list[Job] = []
        self.steps = 0
        self.fails = fails
        self.trials: Trials | None = None

    def clock(self) -> float:
        return 2.0 * len(self.jobs) + 0.02 * self.steps

    def launch(self, jobs: Sequence[Job], on_record: OnRecord) -> None:
        for job in jobs:
            self.jobs.append(job)
            on_record(job, self.train(job))

    def train(self, job: Job) -> Record:
        point, seed = job.point, SETTINGS.seed_of(job.point.seed, repeat=job.repeat)
        evaluations, status, stopped_by, step = [make_evaluation(0, 6.0, training_seconds=0.0)], "ok", None, 0
        pace = PACE[point.framework]
        while step < STEPS and not stopped_by:
            step += 1
            self.steps += 1
            if step % EVERY:
                continue
            loss = loss_of(point, step, seed=seed)
            evaluations.append(make_evaluation(step, loss, training_seconds=pace * step))
            stopped_by = "target" if loss <= SETTINGS.target_loss else None
            if (
                job.repeat == 0
                and self.trials.ends_early(job, report(step, loss, seconds=pace * step))
                and not stopped_by
            ):
                stopped_by, status = "search", "stopped"
        if self.fails(point):
            return make_record([], status="failed", message="no", repeat=job.repeat, **point.model_dump())
        ranks = [
            make_rank(rank, step_seconds=[pace] * step, evaluations=evaluations, stopped_by=stopped_by)
            for rank in range(2)
        ]
        record = make_record(ranks, repeat=job.repeat, **point.model_dump())
        return record.model_copy(update={"measure": SETTINGS, "outcome": Outcome(status=status, message="ended")})


def report(step: int, loss: float, *, seconds: float) -> Progress:
    """What rank 0's worker says after an evaluation."""
    return Progress(
        generation=0, rank=0, index=0, phase="measure", step=step, validation_step=step, validation_loss=loss,
        validation_tokens=1000 * step, validation_seconds=seconds,
    )  # fmt: skip


def ask(
    *, goal: str = "steps", frameworks: Sequence[str] = ("pytorch",), budget: float = 150.0, **changes: Any
) -> Question:
    space = read_space({"learning_rate": "log:1e-4..1"}, world_size=2, where="here")
    return Question(
        defaults=[Point(**GIVEN, framework=name, world_size=2) for name in frameworks],
        given=GIVEN,
        space=space,
        goals=tuple(GOALS[name] for name in goal.split(",")),
        settings=SETTINGS,
        budget_seconds=budget,
        pairs=6,
        **changes,
    )


def search(
    question: Question, machine: Machine, *, recorded: dict[str, Record] | None = None
) -> tuple[Trials, list[str]]:
    lines: list[str] = []
    trials = Trials(question, machine.launch, say=lines.append, recorded=recorded or {}, clock=machine.clock)
    machine.trials = trials
    trials.search()
    return trials, lines


# What it finds


def test_a_better_rate_is_found_and_bad_ones_are_ended_early() -> None:
    machine = Machine()
    trials, lines = search(ask(), machine)
    assert 0.008 < trials.best.point.learning_rate < 0.05
    records = list(trials.records.values())
    assert records[0].point == trials.default and records[0].outcome.status == "ok", "the default comes first, whole"
    stopped = [record for record in records if record.outcome.status == "stopped"]
    assert len(stopped) > len(records) / 2, "most are of no interest"
    assert all(len(record.ranks[0].step_seconds) < STEPS for record in stopped)
    keys = [job.key for job in machine.jobs]
    assert len(set(keys)) == len(keys) == len(records) == len(lines), "a launch, a record and a line a trial"
    assert lines[0].startswith("[1] default in pytorch  ") and any("ended early, loss" in line for line in lines)
    assert machine.clock() <= 150.0, "time is left for the pairs"


def test_early_ends_leave_time_for_more_trials() -> None:
    counts = [len(search(ask(ends_early=ends), Machine())[0].records) for ends in (True, False)]
    assert counts[0] > 1.2 * counts[1]


def test_no_better_than_random_would_be_a_shame() -> None:
    """Five seeds each, with the same budget."""
    best = {
        sampler: [
            search(ask(seed=seed, sampler=sampler, ends_early=sampler != "random", budget=100.0), Machine())[0]
            for seed in range(5)
        ]
        for sampler in ("tpe", "random")
    }
    steps = {name: [trials.reach(trials.best) for trials in found] for name, found in best.items()}
    assert np.mean(steps["tpe"]) <= np.mean(steps["random"])


def test_a_session_that_goes_on_launches_nothing_twice() -> None:
    first = Machine()
    before, _ = search(ask(budget=80.0), first)
    second = Machine()
    after, _ = search(ask(budget=80.0), second, recorded=dict(before.records))
    assert not {job.key for job in first.jobs} & {job.key for job in second.jobs} and second.jobs
    assert len(after.records) == len(before.records) + len(second.jobs)
    assert after.reach(after.best) <= before.reach(before.best)


def test_records_of_another_question_are_no_trials() -> None:
    other = make_record([make_rank(rank, step_seconds=[0.1] * 5) for rank in range(2)], hidden_size=64, num_heads=2)
    trials = Trials(ask(), Machine().launch, say=lambda line: None, recorded={other.key: other})
    assert trials.records == {}


def test_a_space_that_is_exhausted_ends_the_search() -> None:
    question = ask()
    few = read_space({"learning_rate": [1e-3, 1e-2, 2e-2]}, world_size=2, where="here")
    machine = Machine()
    trials, _ = search(Question(**{**vars(question), "space": few}), machine)
    assert len(machine.jobs) == 3 and trials.best.point.learning_rate == 2e-2


def test_a_default_that_fails_is_said_so() -> None:
    with pytest.raises(MissingData, match="the default ended in failed: no"):
        search(ask(), Machine(fails=lambda point: True))


def test_a_budget_that_the_default_spends_is_refused() -> None:
    with pytest.raises(UsageError, match="the budget of 3 s ended with the default, which took "):
        search(ask(budget=3.0), Machine())


def test_points_that_fail_are_never_the_best_and_not_tried_again() -> None:
    machine = Machine(fails=lambda point: point.learning_rate > 5e-3)
    trials, lines = search(ask(), machine)
    assert trials.best.point.learning_rate <= 5e-3 and any("  failed: no" in line for line in lines)


# Frameworks


def test_the_quickest_framework_tries_what_does_not_depend_on_it() -> None:
    machine = Machine()
    trials, _ = search(ask(frameworks=("pytorch", "tensorflow")), machine)
    assert trials.framework == trials.default.framework == trials.best.point.framework == "tensorflow"
    assert {job.point.framework for job in machine.jobs[2:]} == {"tensorflow"}
    timed = trials.records[machine.jobs[1].key]
    assert timed.outcome.status == "stopped" and len(timed.ranks[0].step_seconds) == EVERY, "a few steps say its pace"


def test_what_one_framework_has_learned_the_other_knows() -> None:
    machine = Machine()
    trials, _ = search(ask(goal="seconds", frameworks=("pytorch", "tensorflow"), budget=200.0), machine)
    assert trials.best.point.framework == "tensorflow" and 0.006 < trials.best.point.learning_rate < 0.06
    told = [trial for trial in trials._proposals._study.trials if trial.values and trial.values[0] < NOT_REACHED]
    launched = [record for record in trials.records.values() if trials.reach(record) is not None]
    assert len(told) > len(launched), "each counts in both frameworks"


def test_the_pace_of_a_step_does_not_depend_on_the_rate() -> None:
    ranks = [make_rank(rank, step_seconds=[0.5, 0.1, 0.1, 0.1]) for rank in range(2)]
    record = make_record(ranks, framework="tensorflow", learning_rate=0.1)
    assert find_pace(record.point.model_copy(update={"learning_rate": 0.2, "schedule": "linear"}), [record]) == 0.1
    assert find_pace(record.point.model_copy(update={"framework": "pytorch"}), [record]) is None
    assert find_pace(record.point.model_copy(update={"micro_batch_size": 16}), [record]) is None


# Worth


def ended(losses: Sequence[float], status: str = "ok", *, target: float | None = 3.0, **fields: Any) -> Record:
    evaluations = [make_evaluation(10 * i, loss, training_seconds=2.0 * i) for i, loss in enumerate(losses)]
    ranks = [
        make_rank(rank, step_seconds=[0.2] * max(1, 10 * (len(losses) - 1)), evaluations=evaluations)
        for rank in range(2)
    ]
    return make_record(ranks, status=status, target_loss=target, **fields)


def test_launches_are_ordered_by_how_soon_then_by_how_near() -> None:
    steps = GOALS["steps"]
    ordered = [
        ended([6, 2.5]), ended([6, 4, 2]), ended([6, 5, 3.2]), ended([6, 4.5], "stopped"), ended([6, 5.5], "stopped"), ended([], "diverged"),
    ]  # fmt: skip
    values = [worth(record, steps) for record in ordered]
    assert values == sorted(values) and len(set(values)) == len(values)
    assert values[1] == 15.0 and values[-1] == LOST, "between 10 and 20, where the line meets 3"
    assert reach(ordered[1], GOALS["tokens"]) == 15 * ordered[1].model.tokens_per_step
    assert reach(ordered[1], GOALS["seconds"]) == 3.0
    assert reach(ordered[3], steps) is None is reach(ordered[5], steps)
    assert worth(ended([6, 4.0]), GOALS["loss"]) == 4.0 < worth(ended([6, 3.0], "stopped"), GOALS["loss"])


def test_throughput_needs_no_evaluation() -> None:
    throughput = GOALS["throughput"]
    record = make_record([make_rank(rank, step_seconds=[5.0, 0.2, 0.2]) for rank in range(2)])
    assert reach(record, throughput) == worth(record, throughput) == 0.2 / record.model.tokens_per_step
    assert worth(ended([6, 5.0], "stopped"), throughput) == LOST
    pairs = [Pair(default=2e-5, found=1e-5)] * 3
    assert describe_gain(judge(pairs, throughput), throughput).startswith(
        "the default takes 2.00 times as many seconds a token as this"
    )


def test_the_front_holds_what_nothing_beats() -> None:
    assert find_front([(1, 5), (2, 4), (2, 5), (3, 1), (1, 5), (4, 4)]) == [0, 1, 3]


# Early ends


def looks(*losses: float, every: int = 10) -> list[Look]:
    return [Look(steps=every * i, tokens=0.0, seconds=0.0, loss=loss) for i, loss in enumerate(losses, start=1)]


def test_rungs_are_a_third_and_a_ninth_of_the_way() -> None:
    assert make_halving("steps", whole=180, first=5).rungs == (180 / 27, 20.0, 60.0)
    assert make_halving("steps", whole=10, first=5).rungs == ()


def test_a_launch_goes_on_among_the_best_third() -> None:
    halving = make_halving("steps", whole=90, first=10)
    assert halving.rungs == (10.0, 30.0)
    others = [looks(5.0, 4.0, 3.0), looks(4.0, 3.5, 3.2), looks(4.5)]
    assert halving.find_end(looks(3.9), others) is None
    assert halving.find_end(looks(4.2), others) == "1 of 3 were better after 10 steps"
    assert halving.find_end(looks(4.2), others, is_patient=True) is None, "judged from the second rung on"
    assert halving.find_end(looks(4.2, 4.0), others) is None, "between two rungs"
    assert halving.find_end(looks(3.9, 3.6, 3.1), others) == "1 of 2 were better after 30 steps", "who came so far"
    five = [looks(4.0 + i) for i in range(5)]
    assert halving.find_end(looks(4.5), five) is None, "the best two of six go on"
    assert halving.find_end(looks(5.5), five) == "2 of 5 were better after 10 steps"


def test_an_evaluation_that_was_not_reported_is_compared_where_the_next_one_was() -> None:
    halving = make_halving("steps", whole=90, first=10)
    late = [Look(steps=20, tokens=0.0, seconds=0.0, loss=3.9)]
    assert halving.find_end(late, [looks(5.0, 4.0)]) is None and halving.find_end(late, [looks(5.0, 3.8)])


def test_what_cannot_be_the_best_any_more_is_ended() -> None:
    assert find_hopeless(looks(math.nan), progress="steps", best=None) == "its loss is not finite"
    assert (
        find_hopeless(looks(4.0, 3.9), progress="steps", best=20.0)
        == "not at the target after 20 steps, the best was after 20"
    )
    assert find_hopeless(looks(4.0, 3.9), progress="steps", best=21.0) is None


def test_of_two_goals_only_what_is_lost_is_ended() -> None:
    trials, _ = search(ask(goal="steps,seconds", frameworks=("pytorch", "tensorflow"), budget=120.0), Machine())
    assert {record.outcome.status for record in trials.records.values()} <= {"ok"}
    assert trials.front and trials.best in trials.front


# Readers of records


def test_a_launch_that_was_ended_early_is_neither_failed_nor_a_result() -> None:
    record = ended([6, 5.0, 4.0], "stopped")
    assert not record.is_measured and [look.loss for look in read_looks(record)] == [5.0, 4.0]
    run = Run([record, ended([6, 2.0], repeat=1)])
    assert list_failures(run) == [], "no failure"
    row = dict(zip((table := target_table(run)).header, table.cells[0], strict=True))
    assert (row["n"], row["reached"]) == ("1", "1 of 1"), "nobody knows how it would have ended"


# The proof


def confirmed(machine: Machine, found: Point, *, goal: str = "steps", **options: Any) -> Confirmed:
    default = Point(**GIVEN, framework="pytorch", world_size=2)
    chosen = {"recorded": {}, "rest_seconds": 1.0, **options}
    pairs = launch_pairs(
        list_pairs(default, found), machine.launch, value_of=lambda record: reach(record, GOALS[goal]), pairs=6, clock=machine.clock, **chosen
    )  # fmt: skip
    return Confirmed(goal=GOALS[goal], pairs=pairs, contrast=judge(pairs, GOALS[goal]))


BETTER = Point(**{**GIVEN, "learning_rate": 2e-2}, framework="pytorch", world_size=2)


def test_pairs_have_seeds_of_their_own_and_prove_the_gain() -> None:
    machine = Machine()
    found = confirmed(machine, BETTER)
    assert sorted({job.repeat for job in machine.jobs}) == [1, 2, 3, 4, 5, 6], "the search has seen repeat 0"
    assert len(machine.jobs) == 12 and sum(job.point == BETTER for job in machine.jobs[::2]) == 3, (
        "each goes first as often"
    )
    assert found.contrast.call is Call.SLOWER and found.contrast.high < 1 and found.contrast.rounds == 6
    text = describe_gain(found.contrast, GOALS["steps"])
    assert text.startswith("the default takes ") and text.endswith(", n = 6 seeds)")


def test_more_pairs_fit_into_a_longer_budget() -> None:
    machine = Machine()
    found = confirmed(machine, BETTER, rest_seconds=60.0)
    assert 6 < len(found.pairs) <= 18 and machine.clock() <= 60.0


def test_recorded_pairs_are_not_launched_again_and_half_ones_do_not_count() -> None:
    first = Machine()
    whole = confirmed(first, BETTER)
    records = {job.key: first.train(job) for job in first.jobs}
    half = Job(point=BETTER, repeat=3).key
    del records[half]
    second = Machine()
    again = confirmed(second, BETTER, recorded=records)
    assert {job.repeat for job in second.jobs} == {7} and len(again.pairs) == 6 == len(whole.pairs)


def test_where_a_launch_does_not_get_there_there_is_no_ratio() -> None:
    slow = BETTER.model_copy(update={"learning_rate": 1.0})
    found = confirmed(Machine(), slow)
    assert found.contrast is None
    assert found.describe_missed().startswith(
        "no ratio of steps to the target loss: 0 of 6 launches with what was found got there"
    )


def test_a_result_says_what_was_found_and_what_it_gains() -> None:
    machine = Machine()
    question = ask()
    trials, _ = search(question, machine)
    best = trials.best
    pairs = [Pair(default=100.0 + i, found=50.0 + i) for i in range(6)]
    proof = Confirmed(goal=GOALS["steps"], pairs=pairs, contrast=judge(pairs, GOALS["steps"]))
    found = Found(default=trials.default, best=best, front=[], trials=9, ended_early=4, confirmed=proof)
    lines = describe_found(found, question).splitlines()
    assert lines[0] == f"learning_rate={best.point.learning_rate:g}" and lines[-1] == "9 trials, 4 of them ended early"
    assert "the default takes 1.9" in lines[1]
    same = Found(default=best.point, best=best, front=[], trials=9, ended_early=4)
    assert (
        describe_found(same, question) == "nothing was found that beats the default (9 trials, 4 of them ended early)"
    )


def test_losses_are_judged_as_losses() -> None:
    pairs = [Pair(default=4.0 + 0.01 * i, found=3.5 + 0.01 * i) for i in range(6)]
    text = describe_gain(judge(pairs, GOALS["loss"]), GOALS["loss"])
    assert text.startswith("validation loss 0.500 nats lower than by default, which ends at 4.025 (95 % interval -0.5")


SITE = Site(is_single_host=True, memory_bytes=2**40, has_gpu=False)


def test_pairs_take_turns_where_the_machine_decides() -> None:
    default = Point(**GIVEN, world_size=2)
    turns = choose_turns(GOALS["seconds"], default, BETTER, SITE)
    assert isinstance(turns, PairTurns)
    jobs = [Job(point=point, repeat=4) for point in (BETTER, default)]
    assert turns.arrange(jobs) == jobs and set(turns.number_places(jobs).values()) == {4}
    assert [turns.arm_of(job.point) for job in jobs] == [FOUND, DEFAULT]
    assert turns.side_of(default) == turns.side_of(BETTER) is not None
    for goal, site in (
        ("steps", SITE),
        ("seconds", Site(is_single_host=False, memory_bytes=2**40, has_gpu=False)),
        ("seconds", Site(is_single_host=True, memory_bytes=1, has_gpu=False)),
    ):
        assert choose_turns(GOALS[goal], default, BETTER, site) == Turns()
