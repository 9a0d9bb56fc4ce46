"""A run folder -> what a display of the sweep in it shows, now and until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from hvbench.cli.display.ledger import Ledger
from hvbench.cli.display.lines import Display
from hvbench.cli.display.report import describe_run
from hvbench.errors import MissingData
from hvbench.io.folders import is_locked
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan, Skipped
from hvbench.records.journal import (
    AnyEvent,
    Began,
    Ended,
    Extended,
    JournalReader,
    Launched,
    Prepared,
    Progressed,
    Started,
)
from hvbench.records.record import AnyPoint
from hvbench.records.store import RunFolder

POLL_SECONDS = 0.5


def watch_run(path: Path, display: Display) -> None:
    """Show a sweep until its process ends, then what it found; of one that has ended before that alone.

    Raises:
        UsageError: this is no run folder.
        MissingData: the process of the sweep is gone without a word, or nothing was measured.
    """
    folder = RunFolder(path)
    folder.read_run()
    if is_locked(path):
        with display:
            ended = follow(JournalReader(path), display, folder)
        if ended is None:
            raise MissingData(
                f"{path}: the process that ran this sweep is gone; what it measured is safe: go on with --resume"
            )
        if ended.error:
            display.warn(f"the sweep ended early: {ended.error}")
    display.show(describe_run(path), path=path)


def follow(reader: JournalReader, display: Display, folder: RunFolder) -> Ended | None:
    """Show what happens until no process works on the run any more; how the last one ended, None where it did not say."""
    ended, replay = None, Replay(display, folder)
    while True:
        is_running = is_locked(folder.path)  # asked before the last look
        events = list(reader.read())
        for place, event in enumerate(events):
            if isinstance(event, Began):
                ended, replay, display.ledger = None, Replay(display, folder), Ledger()
            elif isinstance(event, Ended):
                ended = event
            elif not any(isinstance(later, Began) for later in events[place + 1 :]):
                replay.take(event)
        if not is_running:
            return ended
        time.sleep(POLL_SECONDS)


class Replay:
    """Lets a display see what a journal says."""

    def __init__(self, display: Display, folder: RunFolder) -> None:
        self.display = display
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.ended: set[str] = set()  # keys of the launches that were shown

    def take(self, event: AnyEvent) -> None:
        """Show one event; one that refers to what is missing is left out."""
        match event:
            case Prepared():
                self.display.prepare(event.message)
            case Started():
                self.start(event)
            case Extended():
                self.display.extend(self.make_jobs(event.jobs, event.points), event.reason)
            case Progressed():
                self.progress(event)
            case Launched():
                self.launch(event.key)

    def start(self, event: Started) -> None:
        """The plan of the session; what a display counts from then on began when the sweep did."""
        skipped = [
            Skipped(point=event.points[name], reason=reason)
            for name, reason in event.skipped.items()
            if name in event.points
        ]
        done, jobs = (self.make_jobs(keys, event.points) for keys in (event.done, event.jobs))
        members = [
            Member(rank=rank, host=host, pid=0, cores=[], cgroup_cpu_quota=None)
            for rank, host in enumerate(event.hosts)
        ]
        self.display.start(Plan(jobs=jobs, skipped=skipped, done=done), members)
        self.display.ledger.began = time.monotonic() - max(0.0, time.time() - event.at)

    def progress(self, event: Progressed) -> None:
        """Where a launch is."""
        job = self.jobs.get(event.key)
        if job and event.key not in self.ended:
            values = event.model_dump(exclude={"event", "at", "key"})
            self.display.progress(job, Progress(generation=0, rank=0, index=0, **values))

    def launch(self, key: str) -> None:
        """The record of a launch, once it can be read."""
        job, record = self.jobs.get(key), self.folder.read_newest(key)
        if job and record and key not in self.ended:
            self.ended.add(key)
            self.display.finish_job(job, record)

    def make_jobs(self, keys: Iterable[str], points: Mapping[str, AnyPoint]) -> list[Job]:
        """Launches of which the points are known."""
        made = []
        for key in keys:
            name, _, repeat = key.rpartition(".r")
            if name in points and repeat.isdecimal():
                made.append(Job(point=points[name], repeat=int(repeat)))
        self.jobs |= {job.key: job for job in made}
        return made
