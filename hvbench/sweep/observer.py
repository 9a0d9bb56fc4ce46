"""Who follows a sweep while it runs: the protocol of the command line's displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record


class Observer(Protocol):
    """Is told what happens, in the order in which it happens."""

    def prepare(self, message: str) -> None:
        """Something slow happens before the first point."""

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """All ranks have joined; the first point is next."""

    def progress(self, job: Job, message: Progress) -> None:
        """Rank 0's worker is in `phase`, at `step`; `loss` and the time of its steps, where it has any."""

    def finish_job(self, job: Job, record: Record) -> None:
        """A record was written."""

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """More launches follow those of the plan."""
