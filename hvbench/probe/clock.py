"""The clock of a script's training: each moment belongs to a step, to the wait for data between two of them, or to a pause.

So a rank's steps, waits and pauses add up to the time that elapsed since its first step began.
"""

from __future__ import annotations

import time


class StepClock:
    """Seconds of steps and of what lies between them, by calls at their ends, at which the device is idle."""

    def __init__(self) -> None:
        self._marks: list[float] = []  # begin and end of every step in turn, by the clock of training alone
        self.pauses = 0  # that contain this moment
        self._origin: float | None = None  # when the first step began, and all pauses since; None: none has begun
        self._begun = 0.0  # the present step, by the clock of training alone
        self._paused_seconds = 0.0
        self._pause_begun = 0.0  # of a pause that contains this moment
        self._evaluated = 0.0  # pauses up to the last step's end or to the last evaluation since

    @property
    def step_seconds(self) -> list[float]:
        """Of every step."""
        return self.step_seconds_after(0)

    @property
    def data_seconds(self) -> list[float]:
        """Of the wait before every step."""
        return self.data_seconds_after(0)

    def step_seconds_after(self, steps: int) -> list[float]:
        """Of every step but the first so many."""
        begun, ended = self._marks[2 * steps :: 2], self._marks[2 * steps + 1 :: 2]
        return [end - begin for begin, end in zip(begun, ended, strict=True)]

    def data_seconds_after(self, steps: int) -> list[float]:
        """Of the wait before every step but the first so many."""
        before = self._marks[2 * steps - 1] if steps else 0.0
        begun, ended = self._marks[2 * steps :: 2], self._marks[2 * steps + 1 :: 2]
        return [begin - end for begin, end in zip(begun, [before, *ended], strict=False)]

    @property
    def training_seconds(self) -> float:
        """The clock of training alone since the first step's start: without pauses."""
        if self._origin is None:
            return 0.0
        return (self._pause_begun if self.pauses else time.perf_counter()) - self._origin

    def begin_step(self, *, at_once: bool = False) -> None:
        """A step begins now, or, `at_once`, where the last one ended.

        The first one has waited for no data: what comes before it is no part of the training.
        """
        if self._origin is None:
            self._origin = time.perf_counter()
        else:
            self._begun = self._ended() if at_once else time.perf_counter() - self._origin
        self._evaluated = self._paused_seconds

    def end_step(self) -> None:
        """The step ends now. As little is done as can be: after a step of 10 ms the processor's caches hold none of this."""
        now = (self._pause_begun if self.pauses else time.perf_counter()) - self._origin
        self._marks.append(self._begun)
        self._marks.append(now)
        self._evaluated = self._paused_seconds

    def begin_pause(self) -> None:
        """Training rests from now on. Pauses may lie within each other, and within a step."""
        if not self.pauses:
            self._pause_begun = time.perf_counter()
        self.pauses += 1

    def end_pause(self) -> None:
        """Training goes on, if this was the outermost pause."""
        self.pauses -= 1
        if not self.pauses:
            self._leave_out(time.perf_counter() - self._pause_begun)

    def end_evaluation(self) -> tuple[float, float]:
        """An evaluation ends now: its seconds, and `training_seconds` when it began.

        It took the pauses since the last step, or since the evaluation before it. Where there was none it took all time
        since the last step, which becomes a pause: nothing of an evaluation is taken for a wait for data.
        """
        seconds = self._all_pauses() - self._evaluated
        if not seconds and self._origin is not None:
            seconds = self.training_seconds - self._ended()
            self._leave_out(seconds)
        self._evaluated = self._all_pauses()
        return seconds, self.training_seconds

    def _ended(self) -> float:
        """When the last step ended, by the clock of training alone."""
        return self._marks[-1] if self._marks else 0.0

    def _leave_out(self, seconds: float) -> None:
        self._paused_seconds += seconds
        if self._origin is not None:
            self._origin += seconds

    def _all_pauses(self) -> float:
        return self._paused_seconds + (time.perf_counter() - self._pause_begun if self.pauses else 0.0)
