"""The clock of a script's training: each moment belongs to a step, to the wait for data between two of them, or to a pause.

So a rank's steps, waits and pauses add up to the time that elapsed since its first step began.
"""

from __future__ import annotations

import time


class StepClock:
    """Seconds of steps and of what lies between them, by calls at their ends, at which the device is idle."""

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.data_seconds: list[float] = []
        self._started: float | None = None  # when the first step began
        self._begun = 0.0  # the present step, by the clock of training alone
        self._ended = 0.0  # the last step, by the same
        self._paused_seconds = 0.0  # since the first step began
        self._pause_begun: float | None = None
        self.pauses = 0  # that contain this moment
        self._evaluated = 0.0  # pauses up to the last step's end or to the last evaluation since

    @property
    def training_seconds(self) -> float:
        """The clock of training alone since the first step's start: without pauses."""
        if self._started is None:
            return 0.0
        now = time.perf_counter() if self._pause_begun is None else self._pause_begun
        return now - self._started - self._paused_seconds

    def begin_step(self, *, at_once: bool = False) -> None:
        """A step begins now, or, `at_once`, where the last one ended.

        The first one has waited for no data: what comes before it is no part of the training.
        """
        if self._started is None:
            self._started, self._paused_seconds = time.perf_counter(), 0.0
        else:
            self._begun = self._ended if at_once else self.training_seconds
        self._evaluated = self._paused_seconds

    def end_step(self) -> float:
        """The step ends now; its seconds."""
        now = self.training_seconds
        self.step_seconds.append(now - self._begun)
        self.data_seconds.append(self._begun - self._ended)
        self._ended, self._evaluated = now, self._paused_seconds
        return self.step_seconds[-1]

    def begin_pause(self) -> None:
        """Training rests from now on. Pauses may lie within each other, and within a step."""
        if not self.pauses:
            self._pause_begun = time.perf_counter()
        self.pauses += 1

    def end_pause(self) -> None:
        """Training goes on, if this was the outermost pause."""
        self.pauses -= 1
        if not self.pauses:
            self._paused_seconds += time.perf_counter() - self._pause_begun
            self._pause_begun = None

    def end_evaluation(self) -> tuple[float, float]:
        """An evaluation ends now: its seconds, and `training_seconds` when it began.

        It took the pauses since the last step, or since the evaluation before it. Where there was none it took all time
        since the last step, which becomes a pause: nothing of an evaluation is taken for a wait for data.
        """
        seconds = self._all_pauses() - self._evaluated
        if not seconds and self._started is not None:
            seconds = self.training_seconds - self._ended
            self._paused_seconds += seconds
        self._evaluated = self._all_pauses()
        return seconds, self.training_seconds

    def _all_pauses(self) -> float:
        present = 0.0 if self._pause_begun is None else time.perf_counter() - self._pause_begun
        return self._paused_seconds + present
