"""TensorBoard: one event file per launch, below the run's folder; written by tensorboardX, which imports no framework."""

from __future__ import annotations

import shutil
import socket
import struct
import time
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from types import TracebackType

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar, text

from hvbench.io.atomic import explaining_write_errors
from hvbench.tracking.runs import Curves, TrackedRun


class EventFile:
    """An event file, written as it is told to; every method may raise OSError.

    Not tensorboardX's SummaryWriter: it writes in a thread, which ends on a full disk, and then waits for it for ever. Nor its
    RecordWriter, which waits for the disk whenever something is to be seen.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a file in `folder`, in place of what is there."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        now = time.time()
        self._file = (folder / f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}").open("xb")
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        # A TensorBoard that has read the file before this one forgets the steps that it had.
        self._write(Event(wall_time=now, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_curves(self, curves: Curves) -> None:
        """Values of curves, as scalars."""
        for name, values in curves.items():
            for one in values:
                self._add(scalar(name, one.value), step=one.step, seconds=one.seconds)

    def add_steps(self, curves: Curves) -> None:
        """The same values, all of a step at once, which takes a fraction of the time."""
        by_step: dict[tuple[int, float], list[Summary.Value]] = {}
        for name, values in curves.items():
            for one in values:
                by_step.setdefault((one.step, one.seconds), []).append(Summary.Value(tag=name, simple_value=one.value))
        for (step, seconds), values in sorted(by_step.items(), key=itemgetter(0)):
            self._add(Summary(value=values), step=step, seconds=seconds)

    def add_figures(self, run: TrackedRun) -> None:
        """Figures of a launch, as scalars `figures/…` at its last step."""
        last = max((values[-1].step for values in run.curves.values()), default=0)
        for name, value in run.figures.items():
            self._add(scalar(f"figures/{name}", value), step=last, seconds=run.end_seconds)

    def add_settings(self, run: TrackedRun) -> None:
        """Status, suite and settings of a launch, as a text."""
        facts = {"status": run.status, "suite": run.suite, **run.settings}
        lines = ["| field | value |", "| :--- | :--- |", *(f"| {name} | {value} |" for name, value in facts.items())]
        self._add(text("point", "\n".join(lines)), step=0, seconds=run.start_seconds)

    def flush(self) -> None:
        """Let others see everything."""
        self._file.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def _add(self, summary: Summary, *, step: int, seconds: float) -> None:
        self._write(Event(wall_time=seconds, step=step, summary=summary))

    def _write(self, event: Event) -> None:
        """One record of TFRecord's format: the length and its checksum, the content and its checksum."""
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        checksums = (struct.pack("<I", masked_crc32c(each)) for each in (length, content))
        self._file.write(length + next(checksums) + content + next(checksums))


class LiveRuns:
    """See `hvbench.tracking.runs.LiveRuns`: an event file where that of the record will be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, EventFile] = {}  # by the ids of the launches that are running

    def begin(self, run: TrackedRun) -> None:
        with explaining_write_errors(self.folder):
            self.files[run.id] = EventFile(self.folder / run.name)
            self.files[run.id].add_settings(run)

    def add(self, run: TrackedRun, curves: Curves) -> None:
        with explaining_write_errors(self.folder):
            self.files[run.id].add_steps(curves)
            self.files[run.id].flush()

    def end(self, run: TrackedRun) -> None:
        with explaining_write_errors(self.folder):
            self.files.pop(run.id).close()


def write_runs(runs: Iterable[TrackedRun], folder: Path) -> str:
    """Write every launch, replacing its earlier event file; the command that shows them. Raises StorageError."""
    with explaining_write_errors(folder):
        for run in runs:
            write_run(run, folder / run.name)
    return f"tensorboard --logdir {folder}"


def write_run(run: TrackedRun, folder: Path) -> None:
    """Write one launch: its curves, its figures, its settings. Raises OSError."""
    with EventFile(folder) as file:
        file.add_curves(run.curves)
        file.add_figures(run)
        file.add_settings(run)
