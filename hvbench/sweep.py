"""A sweep: plan, launch, record. Everything between the command line and the workers, on rank 0; it prints nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from hvbench import __version__
from hvbench.environment import describe_environment
from hvbench.errors import Interrupted, UsageError
from hvbench.launch.coordinator import Coordinator, Member, Task, TaskEnd
from hvbench.plan import Job, Plan, estimate_seconds, make_plan, worker_group
from hvbench.record import Outcome, RankSamples, Record
from hvbench.spec import MeasureSettings
from hvbench.store import RunFolder
from hvbench.suite import Suite
from hvbench.training import corpus, text
from hvbench.training.flops import model_facts

# A point may take this many times its estimate, and never less than the floor, before it counts as hung.
TIMEOUT_FACTOR = 10.0
TIMEOUT_FLOOR_SECONDS = 300.0


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


@dataclass(kw_only=True)
class Sweep:
    """One sweep of a suite into a run folder."""

    suite: Suite
    settings: MeasureSettings
    folder: RunFolder
    plan: Plan
    command: Sequence[str]
    statuses: dict[str, int] = field(default_factory=dict)

    def run(self, coordinator: Coordinator, observer: Observer) -> None:
        """Run every job of the plan and write its record; raises HvbenchError when the sweep cannot go on."""
        observer.start(self.plan, list(coordinator.members.values()))
        jobs = self.plan.jobs
        tasks = [make_task(job, self.settings) for job in jobs]
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
        except Interrupted as reason:
            if position < len(jobs):
                end = TaskEnd(results=[], failure={"status": "interrupted", "message": str(reason)}, generation=-1, seconds=0.0)
                self.write(self.make_record(jobs[position], end, started_at=started_at))
            raise

    def write(self, record: Record) -> None:
        """Store a record and count its outcome."""
        self.folder.write_record(record)
        self.statuses[record.outcome.status] = self.statuses.get(record.outcome.status, 0) + 1

    def make_record(self, job: Job, end: TaskEnd, *, started_at: str) -> Record:
        """Join what all ranks left of one job."""
        first = end.results[0] if end.results else {}
        outcome = end.failure or join_outcomes(end.results)
        log = outcome.get("log")
        if log and log.startswith(str(self.folder.path)):
            outcome = {**outcome, "log": log.removeprefix(str(self.folder.path)).lstrip("/")}
        return Record(
            suite=self.suite.name,
            point_id=job.point.point_id,
            point=job.point,
            repeat=job.repeat,
            generation=end.generation if end.generation >= 0 else None,
            measure=self.settings,
            outcome=Outcome(**outcome),
            model=model_facts(job.point),
            environment=first.get("environment") or describe_environment(),
            ranks=[RankSamples.model_validate(result["samples"]) for result in end.results],
            started_at=started_at,
            duration_seconds=end.seconds,
        )


def join_outcomes(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first outcome that is not ok; ranks that read different text did not train one model."""
    digests = [result["environment"]["tokens_digest"] for result in results]
    if len(set(digests)) > 1:
        rank = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        message = f"its text differs from rank 0's (tokens {digests[rank]} and {digests[0]}): same Python and same files on all hosts?"
        return {"status": "failed", "rank": rank, "phase": "data", "message": message}
    return next((result["outcome"] for result in results if result["outcome"]["status"] != "ok"), {"status": "ok"})


def prepare_sweep(
    suite: Suite, folder: RunFolder, *, world_size: int, command: Sequence[str], observer: Observer, resume: bool = False
) -> Sweep:
    """Plan the sweep, take the folder and read the data; raises UsageError, DataError or StorageError before any launch."""
    points = suite.points()
    folder.open_for_writing()
    plan = make_plan(points, suite.measure, world_size=world_size, done=folder.done_keys() if resume else ())
    if not plan.jobs and not plan.done:
        reasons = "; ".join(sorted({skipped.reason for skipped in plan.skipped}))
        raise UsageError(f"{suite.where}: none of its {len(points)} points can run: {reasons}")
    check_data(plan, observer)
    folder.write_run(describe_run(suite, plan, world_size=world_size, command=command))
    return Sweep(suite=suite, settings=suite.measure, folder=folder, plan=plan, command=command)


def check_data(plan: Plan, observer: Observer) -> None:
    """Prepare every text that the plan needs once, here, so that bad input ends the sweep before it starts."""
    points = [job.point for job in plan.jobs]
    for source in dict.fromkeys(point.data for point in points):
        text.check(source)
    for source, vocab_size in dict.fromkeys((point.data, point.vocab_size) for point in points):
        prepared = corpus.prepare(source, vocab_size=vocab_size, report=observer.prepare)
        for point in points:
            if (point.data, point.vocab_size) == (source, vocab_size):
                corpus.require_enough(
                    prepared, sequence_length=point.sequence_length, global_batch_size=point.global_batch_size
                )


def make_task(job: Job, settings: MeasureSettings) -> Task:
    """The job as the launcher needs it."""
    limit = settings.timeout_seconds or max(TIMEOUT_FLOOR_SECONDS, TIMEOUT_FACTOR * estimate_seconds(job, settings))
    return Task(
        group=(job.repeat, worker_group(job.point)),
        framework=job.point.framework,
        world_size=job.point.world_size or 1,
        device=job.point.device,
        job={"kind": "measure", "point": job.point.model_dump(), "measure": settings.model_dump()},
        timeout_seconds=limit,
    )


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
    }


def utc_now() -> str:
    """The time as ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


