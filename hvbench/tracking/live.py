"""A tracker beside a sweep: follows the journal and the steps' files of its run, until the sweep ends.

It reads files and touches nothing of the sweep, which neither waits for it nor knows what it does.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from pathlib import Path

from hvbench.launch.own_process import yield_to_others
from hvbench.launch.script import find_processes
from hvbench.records.journal import AnyEvent, Ended, Extended, JournalReader, Launched, Progressed, Started
from hvbench.records.record import AnyPoint
from hvbench.records.store import RECORD_NAME, RunFolder
from hvbench.tracking.runs import LiveRuns, TrackedRun, identify, list_settings, read_time
from hvbench.tracking.steps import StepReader
from hvbench.tracking.trackers import STEPS_FOLDER, VARIABLE

POLL_SECONDS = 1.0
NICENESS = 19  # beside steps that are timed
STATUS = "running"


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A launch that is running."""

    run: TrackedRun
    steps: StepReader


def follow(run_dir: Path, name: str, *, place: int) -> None:
    """Give a tracker the launches of the sweep that writes the run's journal from that byte on; returns when it has ended.

    Raises:
        StorageError: the tracker could not be written.
        UsageError: `run_dir` is no run folder.
    """
    module = importlib.import_module(f"hvbench.tracking.{name}")
    suite = str(RunFolder(run_dir).read_run().get("suite") or "")
    follower = Follower(run_dir, module.LiveRuns(run_dir / "tracking" / name), suite=suite, place=place)
    begun = None
    while follower.look():
        if follower.begun != begun:  # a library may have started a process of its own, in a session of its own
            begun = follower.begun
            yield_to_others(NICENESS, sessions=find_processes(run_dir, variable=VARIABLE))
        time.sleep(POLL_SECONDS)


class Follower:
    """Passes on to a tracker what a run's files say."""

    def __init__(self, run_dir: Path, tracker: LiveRuns, *, suite: str, place: int) -> None:
        """`place`: the byte of the journal at which this session of the sweep begins."""
        self.run_dir = run_dir
        self.journal = JournalReader(run_dir, place=place)
        self.tracker = tracker
        self.suite = suite
        self.points: dict[str, AnyPoint] = {}
        self.begun = 0  # launches that the tracker knows of
        self.launches: dict[str, Followed] = {}  # by the keys of those that are running

    def look(self) -> bool:
        """Pass on what is new; False when the sweep has ended. Raises StorageError."""
        for event in self.journal.read():
            self.take(event)
            if isinstance(event, Ended):
                return False
        for launch in self.launches.values():
            self.pass_on(launch)
        return True

    def take(self, event: AnyEvent) -> None:
        """Note one event of the journal."""
        match event:
            case Started() | Extended():
                self.points |= event.points
            case Progressed():
                self.note_launch(event)
            case Launched():
                self.end(event.key)
            case Ended():
                for key in list(self.launches):
                    self.end(key)

    def note_launch(self, event: Progressed) -> None:
        """Follow the steps of a launch from its first sign of life on, if it is one of the plan."""
        name = RECORD_NAME.fullmatch(f"{event.key}.json")
        if event.key in self.launches or name is None or name["attempt"] or name["point_id"] not in self.points:
            return
        try:
            begun = read_time(event.started_at)
        except ValueError:  # it is not known
            return
        run = TrackedRun(
            id=identify(self.suite, event.key, event.started_at),
            name=event.key,
            suite=self.suite,
            status=STATUS,
            settings=list_settings(self.points[name["point_id"]], repeat=int(name["repeat"]), revision=None),
            start_seconds=begun,
            end_seconds=begun,
        )
        self.launches[event.key] = Followed(
            run=run, steps=StepReader(self.run_dir / STEPS_FOLDER / f"{event.key}.jsonl")
        )

    def pass_on(self, launch: Followed) -> None:
        """Give the tracker the steps that it has not seen."""
        is_new = launch.steps.steps == 0
        for batch in launch.steps.read():
            if is_new:
                self.tracker.begin(launch.run)
                self.begun += 1
                is_new = False
            self.tracker.add(launch.run, batch.curves())

    def end(self, key: str) -> None:
        """A launch is over: its last steps, then no more."""
        launch = self.launches.pop(key, None)
        if launch:
            self.pass_on(launch)
            if launch.steps.steps:
                self.tracker.end(launch.run)
