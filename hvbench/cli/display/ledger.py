"""What has happened in a sweep so far, as every display needs it: outcomes, rates, the current point, the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.estimates import estimate_sweep_seconds
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record
from hvbench.spec.labels import distinguish, short_name
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings

if TYPE_CHECKING:
    from hvbench.analysis.stats.estimates import Estimate


@dataclass(frozen=True, kw_only=True)
class Now:
    """Where rank 0's worker is; `tokens_per_second` is over its timed steps so far, all ranks' tokens; None: nobody says them."""

    job: Job
    phase: str
    step: int
    steps: int | None
    loss: float | None
    tokens_per_second: float | None


class Ledger:
    """The state of one sweep."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.done_before: list[Job] = []
        self.suffixes: dict[Point, str] = {}  # the fields in which points of the same short name differ
        self.skipped = 0
        self.hosts = 0
        self.ranks = 0
        self.statuses: dict[str, str] = {}  # key of a job -> how it ended
        self.rates: dict[str, list[float]] = {}  # point_id -> tokens per second of its launches that ended in ok
        self.steps: dict[str, list[float]] = {}  # point_id -> their median seconds of a step
        self.running: dict[str, Now] = {}  # key of a job -> where its rank 0 is; several where frameworks take turns
        self.began = time.monotonic()
        self.settings: MeasureSettings | None = None

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """All ranks have joined."""
        from hvbench.analysis.frame import frames  # noqa: F401 (loads pandas now, not between two measurements)

        self.jobs, self.done_before, self.skipped = plan.jobs, plan.done, len(plan.skipped)
        self.hosts, self.ranks = len({member.host for member in members}), len(members)
        self.suffixes = distinguish(job.point for job in [*plan.done, *plan.jobs])
        self.began = time.monotonic()

    def extend(self, jobs: Sequence[Job]) -> None:
        """Launches were added to the plan."""
        self.jobs = [*self.jobs, *jobs]
        self.suffixes = distinguish(job.point for job in [*self.done_before, *self.jobs])

    def name(self, point: Point) -> str:
        """A point in one glance."""
        return short_name(point) + self.suffixes.get(point, "")

    def update(self, job: Job, message: Progress) -> Now:
        """Take in a report of rank 0's worker."""
        tokens, seconds = message.timed_tokens, message.timed_seconds
        rate = tokens / seconds if tokens > 0 and seconds > 0 else None
        now = self.running[job.key] = Now(
            job=job, phase=message.phase.replace("_", " "), step=int(message.step),
            steps=int(message.steps) if message.steps else None, loss=message.loss, tokens_per_second=rate,
        )  # fmt: skip
        return now

    def finish(self, job: Job, record: Record) -> float | None:
        """Take in a record; its tokens per second if it has any."""
        from hvbench.analysis.frame.frames import launch_row  # not `point_frame`: others measure meanwhile

        self.settings = record.measure
        self.running.pop(job.key, None)
        row = launch_row(record, metrics=("tokens_per_second", "step_seconds_median"))
        self.statuses[job.key] = row["status"]
        if row["status"] != "ok":
            return None
        rate, seconds = row["tokens_per_second"], float(row["step_seconds_median"])
        self.steps.setdefault(job.point.point_id, []).append(seconds)
        if rate != rate:  # a script need not say its tokens
            return None
        self.rates.setdefault(job.point.point_id, []).append(float(rate))
        return float(rate)

    def estimate(self, job: Job) -> Estimate | None:
        """Centre and interval of the tokens per second over the point's launches so far."""
        return _estimate(self.rates.get(job.point.point_id))

    def step_estimate(self, job: Job) -> Estimate | None:
        """The same of their median seconds of a step."""
        return _estimate(self.steps.get(job.point.point_id))

    def describe_speed(self, job: Job) -> str:
        """`2,213 tokens/s`, or else `12.3 ms a step`, with the interval where there is one; empty before the point's first launch."""
        from hvbench.analysis.show.cells import format_number

        rate, steps = self.estimate(job), self.step_estimate(job)
        found, scale, unit = (rate, 1.0, "tokens/s") if rate else (steps, 1e3, "ms a step")
        if found is None:
            return ""
        centre, *ends = (
            f"{scale * value:,.0f}" if rate else format_number(scale * value)
            for value in (found.centre, found.low, found.high)
            if value is not None
        )
        interval = f" ({found.confidence * 100:g} % interval {' to '.join(ends)})" if ends else ""
        return f"{centre} {unit}{interval}"

    @property
    def done(self) -> int:
        """How many launches have ended."""
        return len(self.statuses)

    @property
    def counts(self) -> Counter[str]:
        """How many launches ended how."""
        return Counter(self.statuses.values())

    def seconds_left(self) -> float | None:
        """The plan's estimate of the rest, corrected by how the estimate of the done part held; None at either end."""
        if self.settings is None or not self.done or self.done >= len(self.jobs):
            return None
        done = [job for job in self.jobs if job.key in self.statuses]
        expected = estimate_sweep_seconds(done, self.settings)
        rest = estimate_sweep_seconds([job for job in self.jobs if job.key not in self.statuses], self.settings)
        return (time.monotonic() - self.began) * rest / expected


def _estimate(values: list[float] | None) -> Estimate | None:
    from hvbench.analysis.stats.estimates import estimate_rate

    return estimate_rate(values) if values else None
