"""What a person sees on a terminal while a sweep runs: the plan with its outcomes so far, the points that are running,
their speed with the interval over their launches, and the time left. Failures stay above it as lines.

Marks differ by shape, not only by colour; `NO_COLOR` is respected (by rich).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hvbench.cli.display.ledger import Now
from hvbench.cli.display.lines import Display, describe_members, describe_now, describe_record, format_duration
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record

REFRESH_PER_SECOND = 4
OTHER_LINES = 7  # of the view besides the plan
MARKS = {"ok": ("✓", "green"), "running": ("▶", "bold cyan"), "waiting": ("·", "dim")}
BAD_MARK = ("✗", "bold red")


class Live(Display):
    """The live view. It is drawn anew a few times a second and gone at the end, when the results are printed."""

    def __init__(self) -> None:
        super().__init__()
        self.screen = Screen(
            console=self.console, get_renderable=self.draw, refresh_per_second=REFRESH_PER_SECOND, transient=True
        )

    def __enter__(self) -> Live:
        self.screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.stop()

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        self.ledger.start(plan, members)
        for skipped in plan.skipped:
            self.say(f"skipped {skipped.point.point_id}: {skipped.reason}")

    def progress(self, job: Job, message: Progress) -> None:
        """The next drawing shows it."""
        self.ledger.update(job, message)

    def finish_job(self, job: Job, record: Record) -> None:
        self.ledger.finish(job, record)
        if record.outcome.status != "ok":
            self.say(f"✗ {self.describe_job(job)}  {describe_record(record)}")

    def draw(self) -> RenderableType:
        """The whole view."""
        if not self.ledger.jobs:
            return Text("waiting for all ranks")
        return Group(self.draw_head(), self.draw_now(), self.draw_plan())

    def draw_head(self) -> RenderableType:
        """Bar, counts by outcome, and the time left."""
        ledger = self.ledger
        counts = Text.assemble(
            f"{ledger.done}/{len(ledger.jobs)} launches on {describe_members(ledger)}   ",
            (f"{ledger.counts['ok']} ok", "green"),
        )
        for status, count in sorted(ledger.counts.items()):
            if status != "ok":
                counts.append(f"  {count} {status}", BAD_MARK[1])
        counts.append(f"  {len(ledger.jobs) - ledger.done} to go")
        if ledger.done_before:
            counts.append(f"  {len(ledger.done_before)} done before")
        if ledger.skipped:
            counts.append(f"  {ledger.skipped} skipped")
        left = ledger.seconds_left()
        counts.append("" if left is None else f"   ~{format_duration(left)} left", "bold")
        bar = ProgressBar(total=len(ledger.jobs), completed=ledger.done, width=min(60, self.console.width - 2))
        row = Table.grid()  # a bar alone does not end its line
        row.add_row(bar)
        return Group(counts, row)

    def draw_now(self) -> RenderableType:
        """The launches that are running, several where frameworks take turns, and what their points' launches before showed."""
        if not self.ledger.running:
            return Text(
                "starting workers" if self.ledger.done < len(self.ledger.jobs) else "writing the report", style="dim"
            )
        return Group(*map(self.draw_launch, self.ledger.running.values()))

    def draw_launch(self, now: Now) -> Text:
        """One line of a launch that is running."""
        speed = self.ledger.describe_speed(now.job)
        before = f"   before: {speed}" if speed else ""
        return Text.assemble(
            ("▶ ", MARKS["running"][1]),
            (self.describe_job(now.job), "bold"),
            f"  {describe_now(now)}{before}",
            no_wrap=True,
            overflow="ellipsis",
        )

    def draw_plan(self) -> RenderableType:
        """A line a point, with a mark a launch; as many as fit, around the current one."""
        launches: dict[str, list[Job]] = {}
        for job in self.ledger.jobs:
            launches.setdefault(job.point.point_id, []).append(job)
        running = [now.job for now in self.ledger.running.values()]
        current = running[0] if running else self.ledger.jobs[min(self.ledger.done, len(self.ledger.jobs) - 1)]
        names = list(launches)
        room = max(1, self.console.height - OTHER_LINES - max(0, len(self.ledger.running) - 1))
        first = min(max(0, names.index(current.point.point_id) - room // 2), max(0, len(names) - room))
        table = Table.grid(padding=(0, 2))
        for name in names[first : first + room]:
            marks = Text()
            for job in launches[name]:
                marks.append(*self.mark(job, is_running=job in (current, *running)))
            table.add_row(
                marks,
                Text(self.ledger.name(launches[name][0].point), no_wrap=True, overflow="ellipsis"),
                self.describe_rate(launches[name][0]),
            )
        hidden = len(names) - min(room, len(names))
        return Group(table, Text(f"and {hidden} more points", style="dim")) if hidden else table

    def mark(self, job: Job, *, is_running: bool) -> tuple[str, str]:
        """Character and style of one launch."""
        status = self.ledger.statuses.get(job.key)
        if status is None:
            return MARKS["running" if is_running else "waiting"]
        return MARKS.get(status, BAD_MARK)

    def describe_rate(self, job: Job) -> Text:
        """Tokens per second of a point's launches so far, or else the time of their steps."""
        estimate = self.ledger.estimate(job)
        if estimate is None:
            return Text(self.ledger.describe_speed(job), style="dim", no_wrap=True)
        interval = "" if estimate.low is None else f"  {estimate.low:,.0f} to {estimate.high:,.0f}"
        return Text(f"{estimate.centre:>9,.0f} tokens/s{interval}", style="dim", no_wrap=True)
