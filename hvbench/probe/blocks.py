"""Where a training is, and what a script enters by `with`: a step, and a pause."""

from __future__ import annotations

import enum
from typing import Protocol


class State(enum.Enum):
    """Where a training is; the value ends an error's message."""

    NEW = "before `with probe.training()`"
    BETWEEN = "outside of a step"
    STEP = "within a step"
    PROFILED = "within a step that is profiled"
    CLOSED = "after the end of the training"
    FORKED = "in a child process, which measures nothing"


OPEN = (State.BETWEEN, State.STEP, State.PROFILED)


class Stepping(Protocol):
    """The part of a training that these call."""

    def begin_step(self) -> None:
        """The work of a step begins."""

    def end_step(self) -> None:
        """It has been done."""

    def abandon_step(self) -> None:
        """It has raised an exception."""

    def begin_pause(self) -> None:
        """What follows is in no step."""

    def end_pause(self) -> None:
        """It was that."""


class Step:
    """`with training.step():`."""

    def __init__(self, training: Stepping) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._training.begin_step()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._training.end_step()
        else:
            self._training.abandon_step()


class Pause:
    """`with training.paused():`."""

    def __init__(self, training: Stepping) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._training.begin_pause()

    def __exit__(self, *_: object) -> None:
        self._training.end_pause()
