"""A sweep while it runs, on rank 0: launches every job and writes a record of each. It prints nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hvbench.errors import Interrupted, LaunchError, StorageError
from hvbench.io.clock import utc_now
from hvbench.launch.coordinator import Coordinator, running_tasks
from hvbench.launch.messages import Progress
from hvbench.launch.task import Failure, FailureStatus, Task, TaskEnd
from hvbench.parity.run import Limits
from hvbench.parity.stamp import stamp_plan
from hvbench.plan.jobs import Job, Plan, number_places
from hvbench.plan.precision import Aim, choose_aim
from hvbench.plan.repeats import BUDGET_SECONDS, next_jobs, units_to_repeat
from hvbench.plan.search import Searched, describe_search
from hvbench.plan.turns import Turns, takes_turns_with_other_arm
from hvbench.records.environment import describe_environment
from hvbench.records.record import Outcome, ParityStamp, Record
from hvbench.records.store import RunFolder
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.clock import StartTimes
from hvbench.sweep.largest import default_plan, list_tries
from hvbench.sweep.observer import Observer
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.outcomes import (
    describe_other_hosts,
    find_divergence,
    find_unequal_steps,
    join_outcomes,
    outcome_of_failure,
    read_samples,
    sum_tokens,
)
from hvbench.sweep.pretraining import find_pretrainings, identify_pretrainings, launch_pretrainings
from hvbench.sweep.resume import find_changes, require_unchanged
from hvbench.sweep.tasks import Shared, make_task, seeded_point
from hvbench.training.flops import model_facts
from hvbench.training.pretraining import pretrained_file, pretraining_name


@dataclass(kw_only=True)
class Sweep:
    """One sweep of a suite into a run folder; `hvbench.sweep.prepare.prepare_sweep` makes it."""

    suite: Suite
    folder: RunFolder
    plan: Plan
    options: SweepOptions
    statuses: dict[str, int] = field(default_factory=dict)  # launches so far, by the status of their outcome
    stamps: dict[Point, ParityStamp] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)  # which frameworks' workers live at the same time
    script: Mapping[str, Any] = field(default_factory=dict)  # which files a script is, for records; of twins nothing
    texts: Mapping[str, str] = field(default_factory=dict)  # run.json's `data`: the digests of what is read
    weights: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # run.json's `initial_weights`
    pretrained: dict[str, Any] = field(default_factory=dict)  # run.json's `pretraining`
    searched: Sequence[Searched] = ()  # the configurations of a suite with a [search]
    ends_early: Callable[[Job, Progress], bool] | None = (
        None  # whether a running launch is trained no further; None: none is
    )
    without_start: dict[Path, Failure] = field(default_factory=dict)  # checkpoint -> why it could not be pretrained
    steps_folder: Path | None = None  # where launches append the samples of their steps, for who follows them

    @property
    def settings(self) -> MeasureSettings:
        """How every point is measured."""
        return self.suite.measure

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints, pretrained ones included."""
        return self.folder.path.resolve() / "checkpoints"

    @property
    def has_work(self) -> bool:
        """Whether anything is left to launch."""
        return bool(self.plan.jobs or self.next_round(rest_seconds=self.budget_seconds))

    @property
    def budget_seconds(self) -> float:
        """Time for the launches that the precision target asks for."""
        return self.settings.budget_seconds or BUDGET_SECONDS

    @property
    def points(self) -> list[Point]:
        """All that is launched, in the order of the plan."""
        return list({job.point.point_id: job.point for job in [*self.plan.done, *self.plan.jobs]}.values())

    @property
    def aim(self) -> Aim:
        """What the precision target is of."""
        return choose_aim(self.points, self.turns)

    def run(self, coordinator: Coordinator, observer: Observer) -> None:
        """Check parity, run the jobs of the plan, then add launches until the precision target or the budget is reached.

        Raises:
            LaunchError: ranks are lost, or workers do not start.
            Interrupted: a signal asked for the end.
            StorageError: a record cannot be written.
        """
        if self.options.checks_parity:
            limits = Limits(
                timeout_seconds=self.settings.timeout_seconds, memory_bytes=self.settings.memory_limit_bytes
            )
            compared = default_plan(self.searched) if self.searched else self.plan
            self.stamps = stamp_plan(coordinator, compared, limits=limits, report=observer.prepare)
        observer.start(self.plan, list(coordinator.members.values()))
        if self.suite.search:
            self.search(self.suite.search, coordinator, observer)
        else:
            self.run_jobs(self.plan.jobs, coordinator, observer)
        deadline = time.monotonic() + self.budget_seconds
        while jobs := self.next_round(rest_seconds=deadline - time.monotonic()):
            self.announce(jobs, self.aim.describe(self.settings.precision_target), observer)
            self.run_jobs(jobs, coordinator, observer)

    def search(self, search: Search, coordinator: Coordinator, observer: Observer) -> None:
        """Launch until the largest value of every configuration is known."""
        announced = {job.key for job in self.plan.jobs}
        tries = list_tries(self.searched, search, self.settings, read_records=lambda: self.folder.read_records()[0])
        for job in tries:
            if job.key not in announced:
                self.announce([job], f"to find {describe_search(search, self.settings)}", observer)
            self.run_jobs([job], coordinator, observer)

    def announce(self, jobs: Sequence[Job], reason: str, observer: Observer) -> None:
        """Note launches that are added to the plan in run.json, and tell the observer why."""
        run = self.folder.read_run()
        self.folder.write_run({**run, "jobs": list(dict.fromkeys([*run["jobs"], *(job.key for job in jobs)]))})
        observer.extend(jobs, reason)

    def pretrain(self, jobs: Sequence[Job], coordinator: Coordinator, observer: Observer) -> None:
        """Train what `jobs` start from and no session has trained yet, and note in run.json who trained it.

        Raises UsageError where weights are not those that earlier launches of this run started from.
        """
        wanted = find_pretrainings(jobs, self.settings, checkpoints=self.checkpoints)
        if not wanted:
            return
        self.without_start |= launch_pretrainings(
            coordinator,
            [each for each in wanted if each.path not in self.without_start],
            timeout_seconds=self.settings.timeout_seconds,
            memory_limit_bytes=self.settings.memory_limit_bytes,
            texts=self.texts,
            report=observer.prepare,
        )
        run, found = self.folder.read_run(), identify_pretrainings(wanted)
        known = run.get("pretraining")
        known = known if isinstance(known, dict) else {}
        changes = find_changes({"pretraining": known}, {"pretraining": found})
        require_unchanged(changes, "what it starts from ", path=self.folder.path, force=self.options.force)
        self.pretrained = {**known, **found}
        if self.pretrained != known:
            self.folder.write_run({**run, "pretraining": self.pretrained})

    def next_round(self, *, rest_seconds: float) -> list[Job]:
        """One more launch of all points of which something is not known to the precision target yet, as time allows."""
        if self.settings.precision_target is None:
            return []
        records, _ = self.folder.read_records()
        wide = units_to_repeat(
            self.points,
            records,
            target=self.settings.precision_target,
            aim=self.aim,
            together=self.turns.unit_of,
        )
        return next_jobs(wide, records, rest_seconds=rest_seconds)

    def run_jobs(self, jobs: Sequence[Job], coordinator: Coordinator, observer: Observer) -> None:
        """Run `jobs` in their order and write a record of each; raises HvbenchError when the sweep cannot continue.

        Those whose pretraining failed end as it did, before the others.
        """
        self.pretrain(jobs, coordinator, observer)
        jobs = self.turns.arrange(self.leave_out_startless(jobs, observer))
        tasks = self.make_tasks(jobs)
        clock, ended = StartTimes(tasks), set()

        def pass_on(index: int, message: Progress) -> bool:
            observer.progress(jobs[index], replace(message, started_at=clock.started_at(index)))
            return self.ends_early is not None and self.ends_early(jobs[index], message)

        try:
            for index, end in coordinator.run(tasks, on_progress=pass_on):
                record = self.make_record(jobs[index], end, started_at=clock.started_at(index))
                self.write(record)
                observer.finish_job(jobs[index], record)
                ended.add(index)
                clock.note_end(index)
        except (Interrupted, LaunchError) as error:
            for index in running_tasks(tasks, ended):
                self.record_interruption(jobs[index], error, started_at=clock.started_at(index))
            raise

    def make_tasks(self, jobs: Sequence[Job]) -> list[Task]:
        """The tasks of `jobs`, with the places at which frameworks, or arms of `hvbench ab`, find each other."""
        places = number_places(self.suite.points(), jobs) | self.turns.number_places(jobs)
        shared = Shared(
            settings=self.settings,
            checkpoints=self.checkpoints,
            pretrained=self.pretrained,
            texts=self.texts,
            weights=self.weights,
            folder=self.suite.folder.resolve() if self.suite.folder else None,
            may_end_early=self.ends_early is not None,
            steps_folder=self.steps_folder,
        )

        def make(job: Job) -> Task:
            turns = {"side": self.turns.side_of(job.point), "arm": self.turns.arm_of(job.point)}
            return make_task(job, shared, place=places.get(job.key), **turns)

        return list(map(make, jobs))

    def leave_out_startless(self, jobs: Sequence[Job], observer: Observer) -> list[Job]:
        """The jobs that have what they start from; the others leave a record that says why there is nothing."""
        kept = []
        for job in jobs:
            point = seeded_point(job, self.settings)
            path = self.checkpoints / pretrained_file(point) if point.is_pretrained else None
            if path not in self.without_start:
                kept.append(job)
                continue
            failure = replace(self.without_start[path], phase="pretraining")
            record = self.make_record(
                job, TaskEnd(results=[], failure=failure, generation=-1, seconds=0.0), started_at=utc_now()
            )
            self.write(record)
            observer.finish_job(job, record)
        return kept

    def record_interruption(self, job: Job, error: Interrupted | LaunchError, *, started_at: str) -> None:
        """Leave a record of the job that was running when the sweep had to end, if the disk still takes one."""
        message = str(error).partition(";")[0]
        failure = Failure(status=FailureStatus.INTERRUPTED, message=message)
        elapsed = datetime.now(UTC) - datetime.fromisoformat(started_at)
        end = TaskEnd(results=[], failure=failure, generation=-1, seconds=max(0.0, elapsed.total_seconds()))
        with contextlib.suppress(StorageError):
            self.write(self.make_record(job, end, started_at=started_at))

    def write(self, record: Record) -> None:
        """Store a record and count its outcome."""
        self.folder.write_record(record)
        self.statuses[record.outcome.status] = self.statuses.get(record.outcome.status, 0) + 1

    def stamp_of(self, job: Job) -> ParityStamp | None:
        """The parity of the job's point, with the weights from which all frameworks train that seed, where they are no seed's."""
        point = job.point
        if search := self.suite.search:
            point = next((each.point for each in self.searched if each.has_try(search, point)), point)
        stamp = self.stamps.get(point)
        if stamp is not None and job.point.initial_weights:
            return stamp.model_copy(update={"start": self.weights[job.point.initial_weights]["digest"]})
        if stamp is None or not job.point.is_pretrained:
            return stamp
        start = self.pretrained.get(pretraining_name(seeded_point(job, self.settings)), {})
        return stamp.model_copy(update={"start": start.get("digest")})

    def make_record(self, job: Job, end: TaskEnd, *, started_at: str) -> Record:
        """The record of one launch, from what all ranks left of it."""
        ranks, garbage = read_samples(end.results)
        if isinstance(job.point, ScriptPoint):
            ranks = sum_tokens(ranks)
        if end.failure:
            outcome = outcome_of_failure(end.failure, run_path=str(self.folder.path))
        else:
            ended = garbage or join_outcomes(end.results) or find_unequal_steps(ranks)
            outcome = ended or find_divergence(job.point, ranks)
        if ranks:
            environment = end.results[0]["environment"] | describe_other_hosts(end.results)
        else:
            environment = describe_environment()
        if self.script:
            environment = {**environment, "script": self.script}
        return Record(
            suite=self.suite.name,
            point_id=job.point.point_id,
            point=job.point,
            repeat=job.repeat,
            generation=end.generation if end.generation >= 0 else None,
            measure=self.settings,
            outcome=outcome or Outcome(status="ok"),
            model=None if isinstance(job.point, ScriptPoint) else model_facts(job.point),
            environment=environment,
            ranks=ranks,
            parity=self.stamp_of(job),
            started_at=started_at,
            duration_seconds=end.seconds,
            in_turns=end.in_turns or takes_turns_with_other_arm(),
        )
