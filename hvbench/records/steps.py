"""The steps of a launch while it trains: rank 0's samples, appended to a file of the run for trackers that follow it, one JSON object a line.

Only a sweep that is tracked asks for the file (`hvbench.launch.requests.LaunchRequest.steps_file`). Who trains writes a line at most every
quarter of a second, in a pause between two steps: all samples since the line before, so that a step by itself costs nothing. A file that
cannot be written costs no step either; the record has all samples in any case.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence

INTERVAL_SECONDS = 0.25  # between two lines
COLUMNS = ("step_seconds", "data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale")
# Not blocked by a pipe that nobody reads, nor led to another file.
APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StepWriter:
    """Appends samples of steps; after the first line that could not be written, none."""

    def __init__(self, path: str) -> None:
        """`path`: of the file, in a folder that is there."""
        self.steps = 0  # that have been written
        self._path = path
        self._written = 0.0
        self._is_broken = False

    @property
    def is_due(self) -> bool:
        """Whether it is time for another line."""
        return not self._is_broken and time.monotonic() - self._written >= INTERVAL_SECONDS

    def write(self, columns: Mapping[str, Sequence[float | None]]) -> None:
        """Append what steps behind the first `steps` have of COLUMNS, as many of each; an empty column is not known of any."""
        steps = len(columns["step_seconds"])
        if self._is_broken or not steps:
            return
        known = {name: column for name, column in columns.items() if len(column) == steps}
        try:
            line = json.dumps({"step": self.steps, "at": time.time(), **known}, allow_nan=False).encode() + b"\n"
            self._append(line)
        except (OSError, ValueError):
            self._is_broken = True
        self.steps += steps
        self._written = time.monotonic()

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, APPENDING, 0o666)
        try:
            if os.write(descriptor, line) < len(line):  # a full disk takes what it can
                self._is_broken = True
        finally:
            os.close(descriptor)
