"""Where a worker is, in a small file that its agent reads; and how long it was there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from hvbench.io.atomic import overwrite_json
from hvbench.records.reading import read_text
from hvbench.worker.faults import Fault, inject

INTERVAL_SECONDS = 0.25
WAITING = "turn"  # what a worker does that waits for another, or that has ended a job and not begun the next


class PhaseClock:
    """Seconds of wall time that a worker spends in each phase of a job, its own start included."""

    def __init__(self, phase: str) -> None:
        """Begin with `phase`, which this process has been in since it was made."""
        self._phase, self._begun = phase, time.monotonic() - process_seconds()
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        """A phase ends, or goes on where it is the same, and `phase` begins."""
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._begun
        self._phase, self._begun = phase, now

    def take(self) -> dict[str, float]:
        """Phase -> seconds since the last call; what comes before the next phase belongs to none of a job."""
        self.enter(WAITING)
        seconds, self._seconds = self._seconds, {}
        return seconds


def process_seconds() -> float:
    """How long ago this process was made, to a hundredth of a second; 0 where the kernel does not say."""
    try:
        since_boot = float((read_text(Path("/proc/uptime")) or "").split()[0])
        ticks = int((read_text(Path("/proc/self/stat")) or "").rpartition(")")[2].split()[19])
    except (IndexError, ValueError):
        return 0.0
    return max(0.0, since_boot - ticks / os.sysconf("SC_CLK_TCK"))


class ProgressFile:
    """`progress.json`; a change of phase is also where faults that a test has planned are injected."""

    def __init__(self, directory: Path, *, faults: list[Fault], begun_in: str = "start") -> None:
        """Args: `begun_in` is the phase that the process has been in since it was made."""
        self.path = directory / "progress.json"
        self.state: dict[str, Any] = {"index": -1, "phase": None, "step": 0}
        self.faults = faults
        self.clock = PhaseClock(begun_in)
        self._written = 0.0

    def note(self, **facts: Any) -> None:
        """Keep `facts` for the next time that the file is written."""
        self.state |= facts

    def enter(self, phase: str, **facts: Any) -> None:
        """Write where the worker is: a new phase or job at once, steps at most every `INTERVAL_SECONDS`."""
        self.clock.enter(phase)
        is_new = phase != self.state["phase"] or facts.get("index", self.state["index"]) != self.state["index"]
        self.note(phase=phase, **facts)
        now = time.monotonic()
        if is_new or now - self._written >= INTERVAL_SECONDS:
            overwrite_json(self.path, self.state)
            self._written = now
        if is_new and self.faults:
            inject(self.faults, self.state, directory=self.path.parent)
