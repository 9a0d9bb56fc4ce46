"""A sweep between the command line and the workers: what is checked before a launch, and what becomes of each end.

`Script` stands where a launch would be: it ends every task as the test wrote down, without a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvbench.errors import DataError, Interrupted, StorageError, UsageError
from hvbench.launch.coordinator import OnProgress
from hvbench.launch.messages import Progress
from hvbench.launch.task import Failure, FailureStatus, StartFailed, Task, TaskEnd
from hvbench.plan.estimates import TIMEOUT_FLOOR_SECONDS
from hvbench.plan.jobs import Job
from hvbench.plan.skip import is_installed
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite, parse_suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.outcomes import describe_other_hosts
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.resume import find_changes
from hvbench.sweep.run import Sweep
from hvbench.sweep.tasks import Shared, make_task
from tests.unit.sample_records import make_rank

pytestmark = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)

TINY = """
question = "Does it work?"
[point]
model = "tiny"
data = "synthetic"
micro_batch_size = 2
[axes]
framework = ["pytorch", "tensorflow"]
seed = [0, 1]
[measure]
steps = 2
"""


class Witness:
    """Notes what an observer is told."""

    def __init__(self) -> None:
        self.received: list[tuple] = []

    def prepare(self, message: str) -> None:
        self.received.append(("prepare", message))

    def start(self, plan: Any, members: Sequence[Any]) -> None:
        self.received.append(("start", len(plan.jobs)))

    def progress(self, job: Job, message: Progress) -> None:
        self.received.append(("progress", job.key, message.step))

    def finish_job(self, job: Job, record: Record) -> None:
        self.received.append(("finish", job.key, record.outcome.status))

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        self.received.append(("extend", [job.key for job in jobs], reason))


def ignore(index: int, message: Progress) -> None:
    """Nobody asks for progress."""


class Script:
    """Ends each task as written; an exception in the list is raised there."""

    def __init__(self, ends: Sequence[TaskEnd | Exception]) -> None:
        self.ends = ends
        self.members: dict[int, Any] = {}

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        for index, end in enumerate(self.ends):
            on_progress(index, Progress(generation=0, rank=0, index=0, phase="measure", step=1))
            if isinstance(end, Exception):
                raise end
            yield index, end


def result(rank: int, *, tokens: str = "abc", outcome: dict[str, Any] | None = None) -> dict[str, Any]:
    """What one rank's worker leaves for one job."""
    return {
        "outcome": outcome or {"status": "ok"},
        "environment": {"host": "a", "tokens_digest": tokens},
        "samples": make_rank(rank, step_seconds=[0.1] * 5).model_dump(),
    }


def ended(*results: dict[str, Any], failure: Failure | None = None, generation: int = 0) -> TaskEnd:
    return TaskEnd(results=list(results), failure=failure, generation=generation, seconds=1.5)


GOOD = ended(result(0), result(1))


def parse(text: str = TINY) -> Suite:
    return parse_suite(text, name="example", where="example.toml")


def prepare(
    path: Path, *, text: str = TINY, world_size: int = 2, resume: bool = False, checks_parity: bool = False
) -> Sweep:
    return prepare_sweep(
        parse(text),
        RunFolder(path),
        SweepOptions(command=["hvbench", "sweep", "a b"], resume=resume, checks_parity=checks_parity),
        world_size=world_size,
        observer=Witness(),
    )


def run(sweep: Sweep, *ends: TaskEnd | Exception) -> tuple[Witness, list[Record]]:
    witness = Witness()
    try:
        sweep.run(Script(ends), witness)
    finally:
        records, problems = sweep.folder.read_records()
        assert problems == []
    return witness, records


# Before the launch


def test_what_was_asked_is_stored_before_anything_runs(tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (asked["suite"], asked["question"], asked["world_size"]) == ("example", "Does it work?", 2)
    assert asked["command"] == "hvbench sweep 'a b'"
    assert asked["axes"] == {"framework": ["pytorch", "tensorflow"], "seed": [0, 1]}
    assert len(asked["jobs"]) == 4 and asked["skipped"] == []


def test_a_suite_of_which_nothing_can_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path / "run", text=TINY.replace("[axes]", "world_size = 4\n[axes]"))
    assert str(caught.value) == "example.toml: none of its 4 points can run: needs 4 ranks, 2 launched"


def test_missing_text_ends_the_sweep_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        prepare(tmp_path / "run", text=TINY.replace('"synthetic"', f'"{tmp_path}/missing"'))


def test_too_little_text_for_one_batch_ends_it_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="^too little text for one batch on every rank: "):
        prepare(tmp_path / "run", text=TINY.replace("micro_batch_size = 2", "micro_batch_size = 1000000"))


def test_a_folder_that_cannot_be_written_ends_it_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another folder with --out"):
        prepare(tmp_path / "file" / "run")


# Tasks


def test_a_task_carries_the_resolved_point_and_the_settings_to_its_workers() -> None:
    job = Job(point=Point(model="tiny", framework="tensorflow", world_size=2, device="cpu"), repeat=1)
    settings = MeasureSettings(steps=4)
    task = make_task(job, Shared(settings=settings))
    assert (task.framework, task.world_size, task.device) == ("tensorflow", 2, "cpu")
    assert Point.model_validate(task.job["point"]) == job.point
    assert MeasureSettings.model_validate(task.job["measure"]) == settings
    assert json.loads(json.dumps(task.job)) == task.job


def test_repeats_never_share_workers() -> None:
    point, settings = Point(model="tiny", world_size=2), MeasureSettings()
    groups = {make_task(Job(point=point, repeat=repeat), Shared(settings=settings)).group for repeat in range(3)}
    assert len(groups) == 3


def test_the_time_limit_is_the_users_or_generous() -> None:
    job = Job(point=Point(model="tiny", world_size=2), repeat=0)
    assert make_task(job, Shared(settings=MeasureSettings(timeout_seconds=7.0))).timeout_seconds == 7.0
    assert make_task(job, Shared(settings=MeasureSettings())).timeout_seconds >= TIMEOUT_FLOOR_SECONDS


# Every end becomes a record


def test_a_launch_that_ends_well_becomes_a_record_of_all_ranks(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run")
    witness, records = run(sweep, GOOD, GOOD, GOOD, GOOD)
    assert sweep.statuses == {"ok": 4}
    assert {record.outcome.status for record in records} == {"ok"}
    record = records[0]
    assert [rank.rank for rank in record.ranks] == [0, 1]
    assert (record.suite, record.repeat, record.generation, record.duration_seconds) == ("example", 0, 0, 1.5)
    assert record.point.world_size == 2 and record.point_id == record.point.point_id
    assert record.model.tokens_per_step == 2 * 2 * 32


def test_the_observer_hears_of_each_job_in_order(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run")
    keys = [job.key for job in sweep.plan.jobs]
    witness, _ = run(sweep, GOOD, GOOD, GOOD, GOOD)
    expected: list[tuple] = [("start", 4)]
    for key in keys:
        expected += [("progress", key, 1), ("finish", key, "ok")]
    assert witness.received == expected


def test_a_failure_becomes_a_record_with_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep = prepare(path)
    log = str(path / "logs" / "generation0000-rank1.log")
    failure = Failure(status=FailureStatus.OOM, rank=1, phase="measure", message="killed by SIGKILL", log=log)
    _, records = run(sweep, ended(failure=failure), GOOD, GOOD, GOOD)
    assert sweep.statuses == {"oom": 1, "ok": 3}
    (bad,) = (record for record in records if record.outcome.status != "ok")
    assert (bad.outcome.rank, bad.outcome.phase, bad.outcome.message) == (1, "measure", "killed by SIGKILL")
    assert bad.outcome.log == "logs/generation0000-rank1.log"  # the run folder may be moved
    assert bad.ranks == [] and bad.environment["hvbench_version"]


def test_a_divergence_keeps_its_samples(tmp_path: Path) -> None:
    outcome = {"status": "diverged", "rank": 0, "phase": "measure", "message": "gradient norm nan at step 3"}
    diverged = ended(result(0, outcome=outcome), result(1, outcome={**outcome, "rank": 1}))
    _, records = run(prepare(tmp_path / "run"), diverged)
    assert records[0].outcome.status == "diverged" and records[0].outcome.rank == 0
    assert len(records[0].ranks) == 2


def test_ranks_that_read_different_text_did_not_train_one_model(tmp_path: Path) -> None:
    _, records = run(prepare(tmp_path / "run"), ended(result(0, tokens="abc"), result(1, tokens="xyz")))
    outcome = records[0].outcome
    assert (outcome.status, outcome.rank, outcome.phase) == ("failed", 1, "data")
    assert "xyz and abc" in outcome.message


@pytest.mark.parametrize(("turns", "running"), [("false", 1), ('"auto"', 2)])
def test_an_interrupt_leaves_what_was_measured_and_marks_what_ran(turns: str, running: int, tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", text=f"{TINY}turns = {turns}\n")
    with pytest.raises(Interrupted):
        run(sweep, GOOD, Interrupted("stopped by SIGINT"))
    records, _ = sweep.folder.read_records()
    assert sorted(record.outcome.status for record in records) == [*["interrupted"] * running, "ok"]
    for stopped in (record for record in records if record.outcome.status == "interrupted"):
        assert stopped.outcome.message == "stopped by SIGINT" and stopped.generation is None


def test_frameworks_that_take_turns_are_beside_each_other_and_their_records_say_so(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run")
    tasks = sweep.make_tasks(sweep.plan.jobs)
    assert [task.framework for task in tasks] == ["pytorch", "tensorflow"] * 2
    assert len({task.beside for task in tasks}) == 1 and len({task.group for task in tasks}) == 2
    assert [task.job["place"] for task in tasks] == [0, 0, 1, 1]
    assert "side by side" in json.loads((tmp_path / "run" / "run.json").read_text())["turns"]
    _, records = run(sweep, *[replace(GOOD, in_turns=True)] * 3, GOOD)
    assert sorted(record.in_turns for record in records) == [False, True, True, True]


def test_a_launch_of_which_only_one_framework_is_missing_takes_no_turns(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run")
    run(sweep, GOOD, ended(failure=Failure(status=FailureStatus.FAILED, message="x")), GOOD, GOOD)
    sweep.folder.close()
    again = prepare(tmp_path / "run", resume=True)
    assert len({task.group for task in again.make_tasks(again.plan.jobs)}) == 1


# The parity check before the first point


class CheckedScript(Script):
    """Ends every trace with `check`, and the rest as written."""

    def __init__(self, ends: Sequence[TaskEnd | Exception], *, check: Failure | Exception) -> None:
        super().__init__(ends)
        self.check = check
        self.traced: list[str] = []

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        if tasks[0].job["kind"] != "trace":
            yield from super().run(tasks, on_progress=on_progress)
            return
        self.traced += [f"{task.framework} {task.job['point']['seed']}" for task in tasks]
        for index in range(len(tasks)):
            if isinstance(self.check, Exception):
                raise self.check
            yield index, ended(failure=self.check)


def test_a_check_that_fails_is_noted_in_every_record_and_costs_no_measurement(tmp_path: Path) -> None:
    sweep, witness = prepare(tmp_path / "run", checks_parity=True), Witness()
    failure = Failure(status=FailureStatus.OOM, rank=0, phase="build", message="no memory")
    script = CheckedScript([GOOD] * 4, check=failure)
    sweep.run(script, witness)
    assert script.traced == ["pytorch 0", "pytorch 1", "tensorflow 0", "tensorflow 1"]
    records, _ = sweep.folder.read_records()
    assert [record.outcome.status for record in records] == ["ok"] * 4
    assert {record.parity.problem for record in records} == {"pytorch oom: no memory"}
    assert {record.parity.counterpart for record in records} == set(FRAMEWORKS)
    assert not any(record.parity.is_proven for record in records)
    told = [received[1] for received in witness.received[: witness.received.index(("start", 4))]]
    assert told[0].startswith("parity 1 of 4: pytorch-tiny-") and told[3].startswith("parity 4 of 4: tensorflow-tiny-")
    assert told[4].startswith("parity done: 2 of 2 configurations could not be compared; tiny-")


def test_workers_that_do_not_start_for_the_check_are_a_problem_of_the_check_alone(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", checks_parity=True)
    reason = StartFailed("workers failed to start", Failure(status=FailureStatus.FAILED, message="no such module"))
    sweep.run(CheckedScript([GOOD] * 4, check=reason), Witness())
    records, _ = sweep.folder.read_records()
    assert {record.parity.problem for record in records} == {"pytorch failed: no such module"}


def test_an_interrupt_during_the_check_ends_the_sweep_before_its_first_point(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", checks_parity=True)
    with pytest.raises(Interrupted):
        sweep.run(CheckedScript([GOOD] * 4, check=Interrupted("stopped by SIGINT")), Witness())
    assert sweep.folder.read_records() == ([], []) and sweep.statuses == {}


def test_without_the_check_a_record_has_no_stamp(tmp_path: Path) -> None:
    script = CheckedScript([GOOD] * 4, check=AssertionError("nothing is traced"))
    sweep = prepare(tmp_path / "run")
    sweep.run(script, Witness())
    assert {record.parity for record in sweep.folder.read_records()[0]} == {None}


# Resume


def test_resume_runs_what_is_missing_or_failed_and_nothing_else(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run")
    keys = [job.key for job in sweep.plan.jobs]
    run(sweep, GOOD, ended(failure=Failure(status=FailureStatus.FAILED, message="x")), GOOD)
    sweep.folder.close()

    again = prepare(tmp_path / "run", resume=True)
    assert [job.key for job in again.plan.jobs] == [keys[1], keys[3]]
    assert [job.key for job in again.plan.done] == [keys[0], keys[2]]
    _, records = run(again, GOOD, GOOD)
    assert [record.outcome.status for record in records] == ["ok"] * 4


def test_without_resume_a_run_is_not_touched(tmp_path: Path) -> None:
    prepare(tmp_path / "run").folder.close()
    with pytest.raises(StorageError, match="holds a run already; go on with --resume"):
        prepare(tmp_path / "run")


# More launches until the figures are precise enough

PRECISE = """
[point]
model = "tiny"
data = "synthetic"
micro_batch_size = 2
[axes]
seed = [0, 1]
[measure]
steps = 2
repeats = 2
precision_target = 0.02
"""


class Machine(Script):
    """Ends the launches of each seed with steps of these seconds, one value a launch, in turn; the last one stays."""

    def __init__(self, **seconds: list[float]) -> None:
        super().__init__([])
        self.seconds = {int(seed.removeprefix("seed")): values for seed, values in seconds.items()}
        self.launched: list[Any] = []

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        for index, task in enumerate(tasks):
            seed = task.job["point"]["seed"]
            values = self.seconds[seed]
            value = values[min(self.launched.count(seed), len(values) - 1)]
            self.launched.append(seed)
            samples = [make_rank(rank, step_seconds=[value] * 5).model_dump() for rank in range(2)]
            yield index, ended(*({**result(0), "samples": each} for each in samples))


def launch(sweep: Sweep, machine: Script) -> tuple[Witness, list[Record]]:
    witness = Witness()
    sweep.run(machine, witness)
    return witness, sweep.folder.read_records()[0]


def test_a_wide_point_is_launched_again_until_it_is_narrow_and_a_narrow_one_is_not(tmp_path: Path) -> None:
    """Seed 0 always takes 1 s. Seed 1 has one launch of 1.03 s: ± 4.2, 2.4, 1.6 % at n = 3, 4, 5, and less after that."""
    sweep = prepare(tmp_path / "run", text=PRECISE)
    machine = Machine(seed0=[1.0], seed1=[1.0, 1.03, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    witness, records = launch(sweep, machine)
    assert machine.launched.count(0) == 5  # narrow after each of its last three launches
    assert machine.launched.count(1) == 7
    assert sweep.statuses == {"ok": 12}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["jobs"] == [
        f"{record.point_id}.r{record.repeat}"
        for record in sorted(records, key=lambda one: (one.repeat, (-1) ** one.repeat * one.point.seed))
    ]
    assert [len(received[1]) for received in witness.received if received[0] == "extend"] == [2, 2, 2, 1, 1]


class Twins(Machine):
    """The same of both frameworks at each seed: TensorFlow takes these seconds, PyTorch as many times that machine's mood of the round."""

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        for index, task in enumerate(tasks):
            point, repeat = Point(**task.job["point"]), task.job["repeat"]
            values = self.seconds[point.seed] if point.framework == "tensorflow" else [1.0]
            seconds = values[min(repeat, len(values) - 1)] * (1 + 0.2 * (repeat % 2))
            self.launched.append((point.framework, point.seed, repeat))
            samples = [make_rank(rank, step_seconds=[seconds] * 5).model_dump() for rank in range(2)]
            yield index, ended(*({**result(0), "samples": each} for each in samples))


def test_where_frameworks_take_turns_rounds_are_added_until_their_ratio_is_narrow(tmp_path: Path) -> None:
    """The machine's speed changes by a fifth from round to round; the ratio is 1 but for one round of seed 1."""
    text = f"{TINY}repeats = 2\nprecision_target = 0.03\n"
    sweep = prepare(tmp_path / "run", text=text)
    machine = Twins(seed0=[1.0], seed1=[1.0, 1.03, *[1.0] * 8])
    witness, _ = launch(sweep, machine)
    rounds = {seed: sum(launched[:2] == ("pytorch", seed) for launched in machine.launched) for seed in (0, 1)}
    assert rounds[0] == 5, "narrow after its third, fourth and fifth round, whatever the rates do"
    assert 5 < rounds[1] < 12
    for framework, seed, repeat in machine.launched:
        other = "tensorflow" if framework == "pytorch" else "pytorch"
        assert (other, seed, repeat) in machine.launched, "a round is of both frameworks"
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert asked["precision_aim"] == "ratios"
    reasons = {received[2] for received in witness.received if received[0] == "extend"}
    assert reasons == {"until the ratio of the frameworks' tokens/s is known to ± 3 % in every configuration"}
    sweep.folder.close()
    assert not prepare_again(tmp_path / "run", text, sweep).has_work, "resumed, it knows that it is done"


def test_where_they_follow_each_other_rates_are_aimed_at(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", text=f"{TINY}turns = false\nprecision_target = 0.03\n")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["precision_aim"] == sweep.aim == "rates"


def test_an_interrupt_among_the_added_rounds_keeps_all_before_it(tmp_path: Path) -> None:
    class Stopped(Twins):
        def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
            if len(self.launched) >= 4:
                raise Interrupted("stopped by SIGINT")
            yield from super().run(tasks, on_progress=on_progress)

    text = f"{TINY}precision_target = 0.03\n"
    sweep = prepare(tmp_path / "run", text=text)
    with pytest.raises(Interrupted):
        launch(sweep, Stopped(seed0=[1.0], seed1=[1.0]))
    records, _ = sweep.folder.read_records()
    assert [record.outcome.status for record in records].count("ok") == 4
    again = prepare_again(tmp_path / "run", text, sweep)
    assert {job.repeat for job in again.plan.jobs} == {1}, "the round that was begun is launched first"


def test_without_a_target_nothing_is_added(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", text=PRECISE.replace("precision_target = 0.02", ""))
    machine = Machine(seed0=[1.0, 2.0], seed1=[1.0, 2.0])
    assert launch(sweep, machine)[1] and len(machine.launched) == 4
    assert not prepare_again(tmp_path / "run", PRECISE.replace("precision_target = 0.02", ""), sweep).has_work


def test_a_spent_budget_adds_nothing(tmp_path: Path) -> None:
    text = PRECISE + "budget_seconds = 1.0\n"  # a launch of the script takes 1.5 s
    machine = Machine(seed0=[1.0, 2.0], seed1=[1.0, 2.0])
    launch(prepare(tmp_path / "run", text=text), machine)
    assert len(machine.launched) == 4


def test_a_point_that_only_fails_is_given_up(tmp_path: Path) -> None:
    class Broken(Script):
        launched = 0

        def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
            for index, _ in enumerate(tasks):
                self.launched += 1
                yield index, ended(failure=Failure(status=FailureStatus.OOM, message="no memory"))

    broken = Broken([])
    launch(prepare(tmp_path / "run", text=PRECISE), broken)
    assert broken.launched == 2 * 3


def prepare_again(path: Path, text: str, sweep: Sweep) -> Sweep:
    sweep.folder.close()
    return prepare(path, text=text, resume=True)


def test_resume_counts_what_was_added_and_goes_on_from_there(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep = prepare(path, text=PRECISE)
    launch(sweep, Machine(seed0=[1.0], seed1=[1.0, 1.03, 1.0]))
    again = prepare_again(path, PRECISE, sweep)
    assert (again.plan.jobs, len(again.plan.done), again.has_work) == ([], 12, False)

    finer = PRECISE.replace("0.02", "0.014")  # another target is no other run
    more = prepare_again(path, finer, again)
    assert more.has_work
    machine = Machine(seed1=[1.0])
    _, records = launch(more, machine)
    assert machine.launched == [1]
    assert sorted(record.repeat for record in records if record.point.seed == 1) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_an_added_launch_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep = prepare(path, text=PRECISE)

    class Stopped(Machine):
        def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
            if self.launched:
                raise Interrupted("stopped by SIGINT")
            yield from super().run(tasks)

    with pytest.raises(Interrupted):
        sweep.run(Stopped(seed0=[1.0], seed1=[1.0]), Witness())
    again = prepare_again(path, PRECISE, sweep)
    assert [job.key.rpartition(".")[2] for job in again.plan.jobs] == ["r2", "r2"]
    machine = Machine(seed0=[1.0], seed1=[1.0])
    _, records = launch(again, machine)
    assert machine.launched == [0, 1, 1, 0, 0, 1] and {record.outcome.status for record in records} == {"ok"}


# Hosts


def test_a_record_says_in_what_other_hosts_differ() -> None:
    def on(place: str, rank: int, **facts: Any) -> dict[str, Any]:
        one = result(rank)
        return {**one, "environment": one["environment"] | facts, "samples": one["samples"] | {"host": place}}

    alike = {"cpu_model": "X", "packages": {"torch": "1"}, "load_before": {"load_average": [0.1]}}
    ranks = [
        on("a", 0, **alike),
        on("a", 1, **alike),
        on("b", 2, **alike),
        on("c", 3, **(alike | {"cpu_model": "Y", "host": "c"})),
    ]
    assert describe_other_hosts(ranks) == {"other_hosts": {"b": {}, "c": {"cpu_model": "Y"}}}
    assert describe_other_hosts(ranks[:2]) == {}


@pytest.mark.parametrize(
    ("jobs", "repeats", "changes"),
    [
        (["a.r0", "b.r0"], 1, []),
        (["a.r0", "b.r0", "a.r1", "b.r1", "a.r2", "b.r2"], 3, []),  # what a report advises: --resume -s repeats=3
        (["a.r0", "c.r0"], 1, ["points: 1 new, 1 gone"]),
        (["a.r0", "b.r0", "c.r0"], 1, ["points: 1 new, 0 gone"]),
    ],
)
def test_more_rounds_are_no_change_of_a_run_and_other_points_are(
    jobs: list[str], repeats: int, changes: list[str]
) -> None:
    before = {"jobs": ["a.r0", "b.r0"], "measure": {"repeats": 1}}
    assert find_changes(before, {"jobs": jobs, "measure": {"repeats": repeats}}) == changes
