"""An observer of a sweep that passes on what it is told, and says when a tracker that follows the sweep is gone."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record
from hvbench.sweep.observer import Observer
from hvbench.tracking.process import LiveTrackers


class Tracked:
    """`observer`, whose sweep `trackers` follow."""

    def __init__(self, observer: Observer, trackers: LiveTrackers) -> None:
        self.observer = observer
        self.trackers = trackers

    def prepare(self, message: str) -> None:
        """Something slow happens before the first point."""
        self.observer.prepare(message)

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """All ranks have joined."""
        self.observer.start(plan, members)

    def progress(self, job: Job, message: Progress) -> None:
        """Rank 0's worker is somewhere else."""
        self.trackers.check()
        self.observer.progress(job, message)

    def finish_job(self, job: Job, record: Record) -> None:
        """A record was written."""
        self.observer.finish_job(job, record)
        self.trackers.check()

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """More launches follow."""
        self.observer.extend(jobs, reason)
