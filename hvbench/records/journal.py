"""The journal of a run: what happens in a sweep, one JSON object a line, appended to `journal.jsonl` in the run's folder for those who watch.

Records say what was measured; the journal says what runs now, which nothing else on the disk does. Each session of a run is from `begin` to `end`.
A line that is cut off is one that is still being written. A journal that cannot be written ends no sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hvbench.errors import UsageError
from hvbench.io.lines import LineReader
from hvbench.io.untrusted import load_json
from hvbench.records.record import AnyPoint
from hvbench.spec.knob import Spec

NAME = "journal.jsonl"
MAX_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 28
MAX_DEPTH = 8
Text = Annotated[str, Field(max_length=10_000)]
Key = Annotated[str, Field(max_length=300)]


class Event(Spec):
    """What every line has."""

    at: float = Field(ge=0, description="seconds since 1970, by the clock of the host that runs the sweep")


class Began(Event):
    """A process has begun to work on the run: what comes before is of earlier ones."""

    event: Literal["begin"] = "begin"


class Started(Event):
    """All ranks have joined; the first launch is next."""

    event: Literal["start"] = "start"
    points: dict[Key, AnyPoint]
    jobs: list[Key]
    done: list[Key] = Field([], description="launches of earlier sessions")
    skipped: dict[Key, Text] = Field({}, description="point -> why it does not run")
    hosts: list[Text] = Field(description="of each rank")


class Prepared(Event):
    """Something slow before the first launch, or between two."""

    event: Literal["prepare"] = "prepare"
    message: Text


class Progressed(Event):
    """Where rank 0's worker of a launch is."""

    event: Literal["progress"] = "progress"
    key: Key
    phase: Text
    step: int = Field(0, ge=0)
    steps: int | None = None
    loss: float | None = None
    timed_tokens: int = Field(0, ge=0)
    timed_seconds: float = Field(0.0, ge=0)
    started_at: Text = Field("", description="when the launch began, as its record will say; empty: not known")


class Launched(Event):
    """A launch has ended, and its record is written."""

    event: Literal["launch"] = "launch"
    key: Key


class Extended(Event):
    """Launches follow those of the plan."""

    event: Literal["extend"] = "extend"
    points: dict[Key, AnyPoint]
    jobs: list[Key]
    reason: Text


class Ended(Event):
    """The session is over: nothing more is launched."""

    event: Literal["end"] = "end"
    error: Text = Field("", description="why it ended before all was launched; empty: it did not")


AnyEvent = Began | Started | Prepared | Progressed | Launched | Extended | Ended
READ = TypeAdapter(Annotated[AnyEvent, Field(discriminator="event")])


class JournalWriter:
    """Appends events; within `with`, whose end is the session's."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the run's, which this process has locked."""
        self.path = folder / NAME
        self.file: BinaryIO | None = None

    def __enter__(self) -> JournalWriter:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            self.file = os.fdopen(os.open(self.path, flags, 0o666), "a+b")
            self._end_line()
        self.write(Began(at=time.time()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write(Ended(at=time.time(), error=str(error or "")[:1000]))
        self._close()

    def write(self, event: AnyEvent) -> None:
        """Append one line; nothing more after one that could not be written."""
        if self.file is None:
            return
        try:
            self._append(json.dumps(event.model_dump(mode="json"), allow_nan=False).encode() + b"\n")
        except (OSError, ValueError):
            self._close()

    def _append(self, content: bytes) -> None:
        self.file.write(content)
        self.file.flush()

    def _end_line(self) -> None:
        """End a line that a process which was killed has left half."""
        if self.file.seek(0, os.SEEK_END):
            self.file.seek(-1, os.SEEK_END)
            if self.file.read(1) != b"\n":
                self._append(b"\n")

    def _close(self) -> None:
        if self.file is not None:
            file, self.file = self.file, None
            with contextlib.suppress(OSError):  # a full disk: what is in the buffer
                file.close()


class JournalReader:
    """Reads what has been appended since it last read; the lines may be anybody's, and what is no event is left out."""

    def __init__(self, folder: Path, *, place: int = 0) -> None:
        """`place`: the byte at which the first line begins that is read."""
        self.lines = LineReader(folder / NAME, max_bytes=MAX_BYTES, max_line_bytes=MAX_LINE_BYTES, place=place)

    def read(self) -> Iterator[AnyEvent]:
        """The new events, oldest first; none where there is no journal."""
        for line in self.lines.read():
            with contextlib.suppress(ValidationError, UsageError):
                yield READ.validate_python(load_json(line, where=str(self.lines.path), max_depth=MAX_DEPTH))
