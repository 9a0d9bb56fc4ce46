"""A sweep: plan, launch, record. Everything between the command line and the workers, on rank 0; it prints nothing."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hvbench import __version__
from hvbench.errors import Interrupted, LaunchError, StorageError, UsageError
from hvbench.launch.coordinator import Coordinator, StartFailed, Task, TaskEnd
from hvbench.launch.placement import Member
from hvbench.parity.run import Limits
from hvbench.parity.stamp import stamp_plan
from hvbench.plan.estimates import time_limit_seconds
from hvbench.plan.jobs import Job, Plan, launch_facts, make_plan, number_places, worker_group
from hvbench.plan.repeats import BUDGET_SECONDS, extra_keys, next_jobs, points_to_repeat
from hvbench.records.environment import describe_environment
from hvbench.records.record import Outcome, ParityStamp, RankSamples, Record
from hvbench.records.store import RunFolder
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.resume import describe_changes, find_changes, fingerprint
from hvbench.training import corpus, text
from hvbench.training.checkpoints import check_checkpoint
from hvbench.training.flops import model_facts
from hvbench.training.packages import find_packages
from hvbench.worker.turns import stretch_timeout

# A last loss above this many times that of guessing all tokens (or classes) alike is an explosion.
EXPLODED = 2.0

MAX_MESSAGE = 1000  # characters of an outcome's message

PASSING_FACTS = ("load_before", "load_after", "host")  # of an environment: no property of a host


class Observer(Protocol):
    """Who watches a sweep: the command line's display."""

    def prepare(self, message: str) -> None:
        """Something slow happens before the first point."""

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """All ranks have joined; the first point is next."""

    def progress(self, job: Job, message: dict[str, Any]) -> None:
        """Rank 0's worker is in a phase, at a step."""

    def finish_job(self, job: Job, record: Record) -> None:
        """A record was written."""

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """More launches follow those of the plan."""


@dataclass(kw_only=True)
class Sweep:
    """One sweep of a suite into a run folder."""

    suite: Suite
    settings: MeasureSettings
    folder: RunFolder
    plan: Plan
    options: SweepOptions
    statuses: dict[str, int] = field(default_factory=dict)
    stamps: dict[Point, ParityStamp] = field(default_factory=dict)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to launch, now."""
        return bool(self.plan.jobs or self.next_round(rest_seconds=self.budget_seconds))

    @property
    def budget_seconds(self) -> float:
        """Time for the launches that the precision target asks for."""
        return self.settings.budget_seconds or BUDGET_SECONDS

    def run(self, coordinator: Coordinator, observer: Observer) -> None:
        """Run every job of the plan, then those that the precision target asks for; raises HvbenchError."""
        if self.options.checks_parity:
            limits = Limits(timeout_seconds=self.settings.timeout_seconds, memory_bytes=self.options.memory_limit_bytes)
            self.stamps = stamp_plan(coordinator, self.plan, limits=limits, report=observer.prepare)
        observer.start(self.plan, list(coordinator.members.values()))
        self.run_jobs(self.plan.jobs, coordinator, observer)
        deadline = time.monotonic() + self.budget_seconds
        while jobs := self.next_round(rest_seconds=deadline - time.monotonic()):
            run = self.folder.read_run()
            self.folder.write_run({**run, "jobs": list(dict.fromkeys([*run["jobs"], *(job.key for job in jobs)]))})
            observer.extend(jobs, f"towards a precision of ± {100 * self.settings.precision_target:g} %")
            self.run_jobs(jobs, coordinator, observer)

    def next_round(self, *, rest_seconds: float) -> list[Job]:
        """One more launch of each point whose tokens/s is not known to the precision target yet, as time allows."""
        if self.settings.precision_target is None:
            return []
        points = list({job.point.point_id: job.point for job in [*self.plan.done, *self.plan.jobs]}.values())
        records, _ = self.folder.read_records()
        wide = points_to_repeat(points, records, target=self.settings.precision_target)
        return next_jobs(wide, records, rest_seconds=rest_seconds)

    def run_jobs(self, jobs: Sequence[Job], coordinator: Coordinator, observer: Observer) -> None:
        """Run `jobs` in their order and write a record of each; raises HvbenchError when the sweep cannot go on."""
        checkpoints = self.folder.path.resolve() / "checkpoints"
        places = number_places(self.suite.points(), jobs)
        tasks = [
            make_task(
                job,
                self.settings,
                place=places.get(job.key),
                memory_limit_bytes=self.options.memory_limit_bytes,
                checkpoints=checkpoints,
            )
            for job in jobs
        ]
        position, started_at = 0, utc_now()

        def hear(message: dict[str, Any]) -> None:
            if position < len(jobs):
                observer.progress(jobs[position], message)

        coordinator.on_progress = hear
        try:
            for position, end in coordinator.run(tasks):  # noqa: B007 (`hear` reads position)
                record = self.make_record(jobs[position], end, started_at=started_at)
                self.write(record)
                observer.finish_job(jobs[position], record)
                position, started_at = position + 1, utc_now()
        except (Interrupted, LaunchError) as reason:
            if position < len(jobs):
                self.mark(jobs[position], reason, started_at=started_at)
            raise

    def mark(self, job: Job, reason: Interrupted | LaunchError, *, started_at: str) -> None:
        """Leave a record of the point that was running when the sweep had to end, if the disk still takes one."""
        message = str(reason).partition(";")[0]
        failure = reason.failure if isinstance(reason, StartFailed) else {"status": "interrupted", "message": message}
        began = datetime.fromisoformat(started_at)
        seconds = max(0.0, (datetime.now(UTC) - began).total_seconds())
        end = TaskEnd(results=[], failure=failure, generation=-1, seconds=seconds)
        with contextlib.suppress(StorageError):
            self.write(self.make_record(job, end, started_at=started_at))

    def write(self, record: Record) -> None:
        """Store a record and count its outcome."""
        self.folder.write_record(record)
        self.statuses[record.outcome.status] = self.statuses.get(record.outcome.status, 0) + 1

    def make_record(self, job: Job, end: TaskEnd, *, started_at: str) -> Record:
        """Join what all ranks left of one job."""
        ranks, garbage = read_samples(end.results)
        outcome = (
            end.failure or garbage or join_outcomes(end.results) or find_explosion(job.point, ranks) or {"status": "ok"}
        )
        environment = (
            end.results[0]["environment"] | describe_other_hosts(end.results) if ranks else describe_environment()
        )
        log = outcome.get("log")
        if log and log.startswith(str(self.folder.path)):
            outcome = {**outcome, "log": log.removeprefix(str(self.folder.path)).lstrip("/")}
        if outcome.get("message"):
            outcome = {**outcome, "message": outcome["message"][:MAX_MESSAGE]}
        return Record(
            suite=self.suite.name,
            point_id=job.point.point_id,
            point=job.point,
            repeat=job.repeat,
            generation=end.generation if end.generation >= 0 else None,
            measure=self.settings,
            outcome=Outcome(**outcome),
            model=model_facts(job.point),
            environment=environment,
            ranks=ranks,
            parity=self.stamps.get(job.point),
            started_at=started_at,
            duration_seconds=end.seconds,
        )


def read_samples(results: Sequence[dict[str, Any]]) -> tuple[list[RankSamples], dict[str, Any] | None]:
    """Every rank's samples, or none and the outcome of a rank whose result is not what a worker writes."""
    samples = []
    for rank, result in enumerate(results):
        try:
            Outcome.model_validate(result["outcome"])
            str(result["environment"]["tokens_digest"])
            json.dumps(result["environment"], allow_nan=False)
            samples.append(RankSamples.model_validate(result["samples"]))
        except (ValueError, KeyError, TypeError) as error:  # ValueError: pydantic's too
            why = shorten(str(error).splitlines()[0], limit=200)
            message = f"rank {rank} left a result that is not what a worker writes: {type(error).__name__}: {why}"
            return [], {"status": "failed", "rank": rank, "phase": "measure", "message": message}
    return samples, None


def describe_other_hosts(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`other_hosts`: what each host but the first rank's says differently of itself; nothing on a single host."""
    first = results[0]
    others: dict[str, dict[str, Any]] = {}
    for result in results:
        host = result["samples"]["host"]
        if host != first["samples"]["host"] and host not in others:
            facts = result["environment"].items()
            kept = {
                key: value
                for key, value in facts
                if key not in PASSING_FACTS and value != first["environment"].get(key)
            }
            others[host] = kept
    return {"other_hosts": others} if others else {}


def find_explosion(point: Point, ranks: Sequence[RankSamples]) -> dict[str, Any] | None:
    """`diverged` if the last loss, averaged over the ranks, is not finite or far worse than guessing.

    Judged here, where all ranks' losses are known: a rank that stopped by its own loss alone would leave the others
    waiting in the next all-reduce.
    """
    steps = min((len(rank.loss) for rank in ranks), default=0)
    if not steps or any(steps - 1 in rank.skipped_steps for rank in ranks):
        return None
    losses = [math.nan if rank.loss[steps - 1] is None else rank.loss[steps - 1] for rank in ranks]
    mean, guessing = (
        sum(losses) / len(losses),
        math.log(point.num_classes if point.is_classifier else point.vocab_size),
    )
    if mean <= EXPLODED * guessing:
        return None
    rank = max(range(len(losses)), key=lambda rank: math.inf if math.isnan(losses[rank]) else losses[rank])
    message = f"loss {mean:.4g} at step {steps - 1}: more than {EXPLODED:g} times {guessing:.3g}, that of guessing"
    return {"status": "diverged", "rank": rank, "phase": "measure", "message": message}


def join_outcomes(results: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The first outcome that is not ok, if any; ranks that read different text did not train one model."""
    digests = [result["environment"]["tokens_digest"] for result in results]
    if len(set(digests)) > 1:
        rank = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        message = f"its text differs from rank 0's (tokens {digests[rank]} and {digests[0]}): same Python and same files on all hosts?"
        return {"status": "failed", "rank": rank, "phase": "data", "message": message}
    return next((result["outcome"] for result in results if result["outcome"]["status"] != "ok"), None)


def prepare_sweep(
    suite: Suite, folder: RunFolder, options: SweepOptions, *, world_size: int, observer: Observer
) -> Sweep:
    """Plan the sweep, take the folder and read the data; raises UsageError, DataError or StorageError before any launch."""
    points = suite.points()
    for source in dict.fromkeys(point.data for point in points):
        text.check(source)
    folder.open_for_writing()
    before = folder.read_run() if (folder.path / "run.json").exists() else None
    if before is not None and not options.resume:
        raise StorageError(
            f"{folder.path}: holds a run already; go on with --resume, or choose another folder with --out"
        )
    plan = make_plan(
        points,
        suite.measure,
        world_size=world_size,
        done=folder.done_keys(retry=options.retry) if before else (),
        extra=extra_keys(before, repeats=suite.measure.repeats) if before else (),
    )
    if not plan.jobs and not plan.done:
        reasons = "; ".join(sorted({skipped.reason for skipped in plan.skipped}))
        raise UsageError(f"{suite.where}: none of its {len(points)} points can run: {reasons}")
    run = describe_run(suite, plan, world_size=world_size, command=options.command)
    if before is not None:
        run = continue_run(before, run, folder=folder, observer=observer, force=options.force)
    check_checkpoints(plan, suite.measure)
    digests = check_data(plan, observer, is_open=suite.measure.precision_target is not None)
    if before is not None:
        require_same_data(before.get("data"), digests, folder=folder, force=options.force)
    known = before.get("data") if before and isinstance(before.get("data"), Mapping) else {}
    folder.write_run({**run, "data": {**known, **digests}})
    return Sweep(
        suite=suite,
        settings=suite.measure,
        folder=folder,
        plan=plan,
        options=options,
    )


def continue_run(
    before: Mapping[str, Any], now: Mapping[str, Any], *, folder: RunFolder, observer: Observer, force: bool
) -> dict[str, Any]:
    """run.json of a run that goes on: as it was begun, with one more session; raises UsageError if it would be another."""
    changes = find_changes(before, now)
    if changes and not force:
        raise UsageError(
            f"{folder.path}: has changed since it was begun: {describe_changes(changes)}; "
            "start a new run, or go on all the same with --force"
        )
    if changes:
        observer.prepare(f"going on although it has changed: {describe_changes(changes)}")
    sessions = before.get("sessions") if isinstance(before.get("sessions"), list) else []
    session = {"command": now["command"], "started_at": now["created_at"], "changes": changes}
    kept = {key: before[key] for key in ("command", "created_at") if isinstance(before.get(key), str)}
    return {**before, **now, **kept, "sessions": [*sessions, session]}


def require_same_data(before: Any, digests: Mapping[str, str], *, folder: RunFolder, force: bool) -> None:
    """Raise UsageError when the text that a run trains on is no longer the same, unless forced."""
    changes = find_changes({"data": before}, {"data": digests}) if isinstance(before, Mapping) else []
    if changes and not force:
        raise UsageError(
            f"{folder.path}: its text has changed since it was begun: {describe_changes(changes)}; "
            "start a new run, or go on all the same with --force"
        )


def check_checkpoints(plan: Plan, settings: MeasureSettings) -> None:
    """Hold every initial checkpoint against the points that go on from it; raises UsageError before any launch."""
    for job in plan.jobs:
        if job.point.initial_checkpoint:
            check_checkpoint(job.point.initial_checkpoint, seeded_point(job, settings))


def check_data(plan: Plan, observer: Observer, *, is_open: bool) -> dict[str, str]:
    """Prepare every text that the plan needs once, here, so that bad input ends the sweep before it starts.

    `is_open`: what is done may be launched again. Returns the digest of each text by `SOURCE, VOCAB_SIZE tokens`.
    """
    points = [job.point for job in [*plan.jobs, *(plan.done if is_open else [])]]
    digests = {}
    for source, vocab_size in dict.fromkeys((point.data, point.vocab_size) for point in points):
        prepared = corpus.prepare(source, vocab_size=vocab_size, report=observer.prepare)
        digests[f"{source}, {vocab_size} tokens"] = prepared.digest
        for point in points:
            if (point.data, point.vocab_size) == (source, vocab_size):
                corpus.require_enough(
                    prepared, sequence_length=point.sequence_length, global_batch_size=point.global_batch_size
                )
                if point.is_classifier:
                    find_packages(point)
    return digests


def make_task(
    job: Job, settings: MeasureSettings, *,
    place: int | None = 0, memory_limit_bytes: int | None = None, checkpoints: Path = Path("checkpoints"),
) -> Task:  # fmt: skip
    """The job as the launcher needs it; below `checkpoints` lie its own, in a folder of its key, and pretrained ones."""
    return Task(
        group=(job.repeat, worker_group(job.point)),
        framework=job.point.framework,
        world_size=job.point.world_size or 1,
        device=job.point.device,
        job={
            "kind": "measure",
            "point": seeded_point(job, settings).model_dump(),
            "measure": settings.model_dump(),
            "key": job.key,
            "place": place,
            "checkpoints": str(checkpoints),
        },
        timeout_seconds=stretch_timeout(time_limit_seconds(job, settings)),
        memory_limit_bytes=memory_limit_bytes,
        **launch_facts(job.point),
    )


def seeded_point(job: Job, settings: MeasureSettings) -> Point:
    """The point as this repeat trains it: from a seed of its own where `seed_per_repeat` asks for that."""
    repeat = job.repeat if settings.seed_per_repeat else 0
    return job.point.model_copy(update={"seed": (job.point.seed + repeat) % 2**31})


def describe_run(suite: Suite, plan: Plan, *, world_size: int, command: Sequence[str]) -> dict[str, Any]:
    """What was asked, as stored in run.json."""
    return {
        "suite": suite.name,
        "question": suite.question,
        "command": shlex.join(command),
        "hvbench_version": __version__,
        "created_at": utc_now(),
        "world_size": world_size,
        "base": dict(suite.base),
        "axes": dict(suite.axes),
        "exclude": [dict(excluded) for excluded in suite.exclude],
        "measure": suite.measure.model_dump(),
        "jobs": [job.key for job in [*plan.done, *plan.jobs]],
        "skipped": [{"point_id": each.point.point_id, "reason": each.reason} for each in plan.skipped],
        "environment": fingerprint(describe_environment()),
    }


def utc_now() -> str:
    """The time as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
