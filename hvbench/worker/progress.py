"""Where a worker is, in a small file that its agent reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hvbench.io.atomic import write_json
from hvbench.worker.faults import Fault, inject

INTERVAL_SECONDS = 0.25


class ProgressFile:
    """`progress.json`; a change of phase is also where faults that a test has planned are injected."""

    def __init__(self, directory: Path, *, faults: list[Fault]) -> None:
        self.path = directory / "progress.json"
        self.state: dict[str, Any] = {"index": -1, "phase": None, "step": 0}
        self.faults = faults
        self._written = 0.0

    def note(self, **facts: Any) -> None:
        """Keep `facts` for the next time that the file is written."""
        self.state |= facts

    def enter(self, phase: str, **facts: Any) -> None:
        """Write where the worker is: a new phase or job at once, steps at most every `INTERVAL_SECONDS`."""
        is_new = phase != self.state["phase"] or facts.get("index", self.state["index"]) != self.state["index"]
        self.note(phase=phase, **facts)
        now = time.monotonic()
        if is_new or now - self._written >= INTERVAL_SECONDS:
            write_json(self.path, self.state, durable=False)
            self._written = now
        if is_new and self.faults:
            inject(self.faults, self.state, directory=self.path.parent)
