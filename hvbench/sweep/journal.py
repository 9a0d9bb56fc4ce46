"""An observer of a sweep that passes on what it is told, and writes it to the run's journal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.journal import Extended, JournalWriter, Launched, Prepared, Progressed, Started
from hvbench.records.record import Record
from hvbench.spec.point import AnyPoint
from hvbench.sweep.observer import Observer

PROGRESS_SECONDS = 1.0  # between two lines about one phase of a launch


class Journalled:
    """`observer`, whose sweep others can watch."""

    def __init__(self, observer: Observer, journal: JournalWriter) -> None:
        self.observer = observer
        self.journal = journal
        self.told: dict[str, tuple[str, float]] = {}  # key of a running launch -> phase and time of its last line

    def prepare(self, message: str) -> None:
        """Something slow happens before the first point."""
        self.journal.write(Prepared(at=time.time(), message=message))
        self.observer.prepare(message)

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """All ranks have joined."""
        self.journal.write(
            Started(
                at=time.time(),
                points=_by_id([each.point for each in [*plan.done, *plan.jobs, *plan.skipped]]),
                jobs=[job.key for job in plan.jobs],
                done=[job.key for job in plan.done],
                skipped={each.point.point_id: each.reason for each in plan.skipped},
                hosts=[member.host for member in members],
            )
        )
        self.observer.start(plan, members)

    def progress(self, job: Job, message: Progress) -> None:
        """Rank 0's worker is somewhere else."""
        now = time.monotonic()
        phase, before = self.told.get(job.key, ("", -math.inf))
        if message.phase != phase or now - before >= PROGRESS_SECONDS:
            self.told[job.key] = message.phase, now
            loss = message.loss if message.loss is not None and math.isfinite(message.loss) else None
            self.journal.write(
                Progressed(
                    at=time.time(),
                    key=job.key,
                    phase=message.phase,
                    step=int(message.step),
                    steps=int(message.steps) if message.steps else None,
                    loss=loss,
                    timed_tokens=int(message.timed_tokens),
                    timed_seconds=float(message.timed_seconds),
                    started_at=message.started_at,
                )
            )
        self.observer.progress(job, message)

    def finish_job(self, job: Job, record: Record) -> None:
        """A record was written."""
        self.told.pop(job.key, None)
        self.journal.write(Launched(at=time.time(), key=job.key))
        self.observer.finish_job(job, record)

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """More launches follow."""
        points = _by_id([job.point for job in jobs])
        self.journal.write(Extended(at=time.time(), points=points, jobs=[job.key for job in jobs], reason=reason))
        self.observer.extend(jobs, reason)


def _by_id(points: Sequence[AnyPoint]) -> dict[str, AnyPoint]:
    return {point.point_id: point for point in points}
