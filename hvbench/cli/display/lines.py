"""What a person reads while a sweep runs where there is no terminal: a line a launch, and a sign of life in long ones.

Results go to stdout, progress to stderr. `hvbench.cli.display.live` is the same for a terminal, `hvbench.cli.display.events` for
programs; `Quiet` says nothing but errors.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rich.console
from rich.text import Text

from hvbench.cli.display.ledger import Ledger, Now
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record

PROGRESS_SECONDS = 60.0  # between two lines about the same launch


class Console(rich.console.Console):
    """A console whose reader may leave (`2>&1 | head`, a closed connection): the sweep continues without output."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # a terminal that is gone
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


class Display:
    """Observes a sweep (`hvbench.sweep.observer.Observer`) and prints plain lines."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.ledger = Ledger()
        self.printed_at = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, text: str, *, path: Path) -> None:
        """Print the results of the run at `path`."""
        Console(highlight=False, soft_wrap=True).print(Text(text))

    def prepare(self, message: str) -> None:
        self.say(f"preparing: {message}")

    def warn(self, message: str) -> None:
        """Print what may go wrong; the sweep continues."""
        self.say(f"warning: {message}")

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        self.ledger.start(plan, members)
        for skipped in plan.skipped:
            self.say(f"skipped {skipped.point.point_id}: {skipped.reason}")
        already = f", {len(plan.done)} done before" if plan.done else ""
        self.say(f"{len(plan.jobs)} launches on {describe_members(self.ledger)}{already}")

    def progress(self, job: Job, message: Progress) -> None:
        """Print a line, at most one a minute for the same launch."""
        now = self.ledger.update(job, message)
        if time.monotonic() - self.printed_at >= PROGRESS_SECONDS:
            self.say(f"{self.describe_job(job)}  {describe_now(now)}{describe_rest(self.ledger)}")

    def finish_job(self, job: Job, record: Record) -> None:
        self.ledger.finish(job, record)
        self.say(
            f"{describe_count(self.ledger)} {self.describe_job(job)}  {describe_record(record)}{describe_rest(self.ledger)}"
        )

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """More launches than planned."""
        self.ledger.extend(jobs)
        self.say(f"{reason}: {len(jobs)} more launch{'es' * (len(jobs) != 1)}{describe_rest(self.ledger)}")

    def describe_job(self, job: Job) -> str:
        """A launch in one glance."""
        return f"{self.ledger.name(job.point)} r{job.repeat}"

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.printed_at = time.monotonic()
        self.console.print(Text(text))


class Quiet(Display):
    """Errors alone are printed, by `hvbench.cli`."""

    def show(self, text: str, *, path: Path) -> None:
        """Print nothing: the report is in the run's folder."""

    def say(self, text: str) -> None:
        """Print nothing."""


def describe_members(ledger: Ledger) -> str:
    """`2 ranks on 1 host`."""
    return f"{ledger.ranks} rank{'s' * (ledger.ranks != 1)} on {ledger.hosts} host{'s' * (ledger.hosts != 1)}"


def describe_count(ledger: Ledger) -> str:
    """`[ 7/48]`."""
    return f"[{ledger.done:{len(str(len(ledger.jobs)))}}/{len(ledger.jobs)}]"


def describe_now(now: Now) -> str:
    """Phase, step, loss and speed of the launch that is running."""
    steps = f" {now.step}/{now.steps}" if now.steps else ""
    loss = f"  loss {now.loss:.3f}" if now.loss is not None else ""
    rate = f"  {now.tokens_per_second:,.0f} tokens/s" if now.tokens_per_second else ""
    return f"{now.phase}{steps}{loss}{rate}"


def describe_rest(ledger: Ledger) -> str:
    """`  ~3 min left`, or nothing."""
    seconds = ledger.seconds_left()
    return "" if seconds is None else f"  ~{format_duration(seconds)} left"


def describe_record(record: Record) -> str:
    """What came out, in one glance."""
    outcome = record.outcome
    if outcome.status != "ok":
        where = f" on rank {outcome.rank}" if outcome.rank is not None else ""
        phase = f" in {outcome.phase}" if outcome.phase else ""
        return f"{outcome.status}{where}{phase}: {outcome.reason}"
    from hvbench.analysis.frame.frames import launch_row

    row = launch_row(record, metrics=("tokens_per_second", "final_loss", "step_seconds_median"))
    rate, loss = row["tokens_per_second"], row["final_loss"]
    # What a script does not say, it does not show; a twin's loss that is no number is a fact.
    parts = [f"{rate:,.0f} tokens/s"] if rate == rate else []
    parts += [f"step {show_milliseconds(row['step_seconds_median'])} ms"]
    parts += [f"loss {loss:.3f}"] if loss == loss or not record.is_script else []
    return "  ".join(parts)


def show_milliseconds(seconds: float) -> str:
    """Whole milliseconds, of short steps with decimals."""
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.01 else f"{seconds * 1e3:.3g}"


def format_duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
