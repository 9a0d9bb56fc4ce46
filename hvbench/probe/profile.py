"""A few steps after the timed ones, recorded by the framework's own profiler: where the time of a step goes, operator by operator.

They are no samples: losses, evaluations and peaks of memory of these steps belong to no record. A profiler that fails costs its
own figures alone, for the other ranks take the same steps.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hvbench.probe.device import peak_device_memory_bytes
from hvbench.probe.recorders import OperatorTime, Recorder, find_recorders, typical_step
from hvbench.worker.memory import peak_rss_bytes

STEPS = 5
MOST_OPERATORS = 200  # that a record keeps, those of the longest time
MAX_NAME = 200  # characters: kernels in C++ have names of thousands
OUTSIDE = "outside of operators"  # Python, waiting, and what the profiler does not see
MAX_LINE = 200


@dataclass(kw_only=True)
class Profile:
    """The recording of one rank, by calls around each of its steps."""

    folder: Path | None  # for traces, in the run's folder `profiles/KEY`; None: nothing is recorded
    rank: int
    peaks: dict[str, int | None] | None = None  # of memory, as they were before it began

    def __post_init__(self) -> None:
        self._left = STEPS if self.folder else 0
        self._recorders: list[Recorder] = []
        self._operators: dict[str, OperatorTime] = {}
        self._traces: list[str] = []
        self._problem: str | None = None
        self._step = ExitStack()  # as recorders mark it
        self._seconds: list[float] = []  # of the steps so far
        self._begun = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether another step is to be recorded."""
        return self._left > 0

    @property
    def has_begun(self) -> bool:
        """Whether the training is past what is measured."""
        return self.peaks is not None

    def begin_step(self) -> None:
        """A step begins now, on an idle device."""
        if not self.has_begun:
            self.peaks = {
                "peak_rss_bytes": peak_rss_bytes(),
                "peak_device_memory_bytes": peak_device_memory_bytes(),
            }
            self._start()
        for recorder in self._recorders:
            self._step.enter_context(recorder.step())
        self._begun = time.perf_counter()

    def end_step(self) -> None:
        """The step ends now, on an idle device."""
        self._seconds.append(time.perf_counter() - self._begun)
        self._step.close()
        self._left -= 1
        if not self._left:
            self.stop()

    def stop(self) -> None:
        """End the recording, with as many steps as there were."""
        self._step.close()
        recorders, self._recorders = self._recorders, []
        for recorder in recorders:
            path = self.folder / f"rank{self.rank}-{recorder.name}.json.gz"
            try:
                self._operators |= typical_step(recorder.stop(path))
            except Exception as error:  # of a profiler, in whatever library: it must not end the training
                self._note(error)
                continue
            if path.is_file():
                self._traces.append(f"{self.folder.parent.name}/{self.folder.name}/{path.name}")

    def describe(self) -> dict[str, Any] | None:
        """A field of `hvbench.records.record.RankSamples`; None where no step was recorded."""
        self.stop()
        if not self._seconds:
            return None
        step_seconds = median(self._seconds)
        longest = sorted(self._operators.items(), key=lambda item: -item[1].seconds - item[1].device_seconds)
        operators = {name[:MAX_NAME]: vars(time_) for name, time_ in longest[:MOST_OPERATORS]}
        if self._operators:
            rest = step_seconds - sum(time_.seconds for time_ in self._operators.values())
            operators[OUTSIDE] = {"count": 1.0, "seconds": max(0.0, rest), "device_seconds": 0.0}
        return {
            "steps": len(self._seconds),
            "step_seconds": step_seconds,
            "operators": operators,
            "traces": self._traces,
            "problem": self._problem,
        }

    def _start(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = find_recorders()
        except Exception as error:  # see `stop`
            self._note(error)
            return
        if not found:
            self._problem = "neither torch nor tensorflow is imported: there is no profiler"
        for recorder in found:
            try:
                recorder.start()
            except Exception as error:  # see `stop`
                self._note(error)
            else:
                self._recorders.append(recorder)

    def _note(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self._problem = "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_LINE]
