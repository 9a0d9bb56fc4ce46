"""What a person sees while a sweep runs: a live line on a terminal, one calm line a point anywhere else."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from hvbench.launch.placement import Member
from hvbench.plan import Job, Plan, estimate_sweep_seconds
from hvbench.record import Record
from hvbench.spec import MeasureSettings


class Console(rich.console.Console):
    """A console whose reader may leave (`2>&1 | head`, a closed connection): what was begun goes on in silence."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # a terminal that is gone
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


class Display:
    """Observes a sweep (`hvbench.sweep.Observer`) and prints; results go to stdout, progress to stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("sweep", total=None, detail="")
        self.jobs: list[Job] = []
        self.done = 0
        self.began = 0.0
        self.settings: MeasureSettings | None = None

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def show(self, text: str) -> None:
        """Print a result."""
        Console(highlight=False, soft_wrap=True).print(Text(text))

    def prepare(self, message: str) -> None:
        self._line(f"preparing: {message}")

    def warn(self, message: str) -> None:
        """Say what may go wrong; the sweep goes on."""
        self._line(f"warning: {message}")

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        from hvbench.analysis import frame  # noqa: F401 (loads pandas now, not between two measurements)

        self.jobs, self.began = plan.jobs, time.monotonic()
        self.bar.update(self.task, total=len(plan.jobs))
        hosts = len({member.host for member in members})
        for skipped in plan.skipped:
            self._line(f"skipped {skipped.point.point_id}: {skipped.reason}")
        where = f"{len(members)} rank{'s' * (len(members) > 1)} on {hosts} host{'s' * (hosts > 1)}"
        already = f", {len(plan.done)} done before" if plan.done else ""
        self._line(f"{len(plan.jobs)} launches on {where}{already}")

    def _detail(self, message: dict[str, Any]) -> str:
        """The current point's phase, step and loss."""
        steps = f" {message.get('step', 0)}/{message['steps']}" if message.get("steps") else ""
        loss = f" loss {message['loss']:.3f}" if message.get("loss") is not None else ""
        return f"{message['phase'].replace('_', ' ')}{steps}{loss}{self._remaining()}"

    def progress(self, job: Job, message: dict[str, Any]) -> None:
        """Refresh the live line."""
        detail = f"{describe_job(job)}  {self._detail(message)}"
        self.bar.update(self.task, detail=detail)

    def finish_job(self, job: Job, record: Record) -> None:
        self.done += 1
        self.settings = record.measure
        self.bar.update(self.task, completed=self.done)
        number = f"[{self.done:{len(str(len(self.jobs)))}}/{len(self.jobs)}]"
        self._line(f"{number} {describe_job(job)}  {describe_record(record)}{self._remaining()}")

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        self.jobs = [*self.jobs, *jobs]
        self.bar.update(self.task, total=len(self.jobs))
        self._line(f"{reason}: {len(jobs)} more launches{self._remaining()}")

    def _remaining(self) -> str:
        """Time left: the plan's estimate of the rest, corrected by how the estimate of the done part held."""
        if self.settings is None or not self.done or self.done == len(self.jobs):
            return ""
        expected = estimate_sweep_seconds(self.jobs[: self.done], self.settings)
        rest = estimate_sweep_seconds(self.jobs[self.done :], self.settings)
        return f"  ~{format_duration((time.monotonic() - self.began) * rest / expected)} left"

    def _line(self, text: str) -> None:
        self.bar.console.print(Text(text))


def describe_job(job: Job) -> str:
    """A point in one glance, without its digest."""
    return f"{job.point.point_id.rpartition('-')[0]} r{job.repeat}"


def describe_record(record: Record) -> str:
    """What came out, in one glance."""
    outcome = record.outcome
    if outcome.status != "ok":
        where = f" on rank {outcome.rank}" if outcome.rank is not None else ""
        phase = f" in {outcome.phase}" if outcome.phase else ""
        return f"{outcome.status}{where}{phase}: {outcome.message}"
    from hvbench.analysis.frame import point_frame

    row = point_frame([record]).iloc[0]
    return (
        f"{row['tokens_per_second']:,.0f} tokens/s  step {row['step_seconds_median'] * 1e3:,.0f} ms  "
        f"loss {row['final_loss']:.3f}"
    )


def format_duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
