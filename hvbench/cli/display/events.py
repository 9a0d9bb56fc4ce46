"""`--json`: what happens in a sweep as one JSON object a line on stdout, for programs. Errors stay lines on stderr.

Every object has `event` and `seconds` since the start: `prepare`, `start`, `skipped`, `warning`, `progress` (at most
about two a second), `launch` (one ended), `extend` (launches were added) and, last, `report`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvbench.cli.display.lines import Display
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record


class Events(Display):
    """Prints events."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()

    def emit(self, event: str, **facts: Any) -> None:
        """Print one event, at once."""
        line = {"event": event, "seconds": round(time.monotonic() - self.began, 3), **facts}
        sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
        sys.stdout.flush()

    def show(self, text: str, *, path: Path) -> None:
        """The run's folder and its report."""
        names = {"html": "report.html", "markdown": "report.md"}
        written = {kind: str(path / name) for kind, name in names.items() if (path / name).exists()}
        self.emit("report", folder=str(path), outcomes=dict(self.ledger.counts), **written)

    def prepare(self, message: str) -> None:
        self.emit("prepare", message=message)

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        self.ledger.start(plan, members)
        for skipped in plan.skipped:
            self.emit("skipped", point_id=skipped.point.point_id, reason=skipped.reason)
        facts = {"launches": len(plan.jobs), "done_before": len(plan.done), "skipped": len(plan.skipped)}
        self.emit("start", ranks=self.ledger.ranks, hosts=self.ledger.hosts, **facts)

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        self.ledger.extend(jobs)
        self.emit("extend", reason=reason, launches=len(self.ledger.jobs))

    def progress(self, job: Job, message: Progress) -> None:
        """Where rank 0's worker is."""
        now = self.ledger.update(job, message)
        facts = {"phase": now.phase, "step": now.step, "steps": now.steps, "loss": now.loss}
        self.emit("progress", **name_job(job), **facts, tokens_per_second=now.tokens_per_second)

    def finish_job(self, job: Job, record: Record) -> None:
        rate = self.ledger.finish(job, record)
        estimate = self.ledger.estimate(job)
        interval = None if estimate is None or estimate.low is None else [estimate.low, estimate.high]
        steps = self.ledger.steps.get(job.point.point_id, [])
        step_seconds = steps[-1] if self.ledger.statuses[job.key] == "ok" else None
        outcome = record.outcome.model_dump()
        facts = {
            "done": self.ledger.done,
            "launches": len(self.ledger.jobs),
            "seconds_left": self.ledger.seconds_left(),
        }
        self.emit(
            "launch",
            **name_job(job),
            **outcome,
            tokens_per_second=rate,
            tokens_per_second_interval=interval,
            step_seconds=step_seconds,
            **facts,
        )


def name_job(job: Job) -> dict[str, Any]:
    """Which launch an event is about."""
    return {"point_id": job.point.point_id, "repeat": job.repeat}
