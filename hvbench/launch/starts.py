"""Which workers start: a kind of worker that fails to start again and again is given up, and the others go on without it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from hvbench.launch.task import Failure, StartFailed, Task

MAX_FAILED_STARTS = 3


def kind_of_workers(task: Task) -> tuple[Hashable, ...]:
    """Everything by which one start differs from another: what is the same in two repeats of a point."""
    settings = tuple(sorted(task.settings.items()))
    connection = (task.strategy, task.by_mpirun, task.servers, task.link_bits_per_second)
    return (task.framework, task.device, task.world_size, *connection, settings)


class Starts:
    """The starts of one launch, over all its lists of tasks."""

    def __init__(self) -> None:
        self._in_a_row: dict[tuple[Hashable, ...], int] = {}  # failed starts of a kind since its last good one
        self._given_up: dict[tuple[Hashable, ...], Failure] = {}
        self._started: set[str] = set()  # frameworks

    def note_success(self, task: Task) -> None:
        """The workers of `task` have started."""
        self._started.add(task.framework)
        self._in_a_row.pop(kind_of_workers(task), None)

    def note_failure(self, task: Task, failure: Failure) -> None:
        """They have not; the last of too many failures in a row gives their kind up.

        A framework of which nothing has started yet, and one kind was given up, gets one try for each other kind: it is
        most likely broken, and a sweep may have many.
        """
        kind = kind_of_workers(task)
        self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1
        is_likely_broken = task.framework not in self._started and any(
            other[0] == task.framework for other in self._given_up
        )
        if self._in_a_row[kind] >= (1 if is_likely_broken else MAX_FAILED_STARTS):
            times = "" if is_likely_broken else f" {MAX_FAILED_STARTS} times in a row"
            message = f"{task.framework} workers failed to start{times}: rank {failure.rank}: {failure.message}"
            self._given_up[kind] = replace(failure, message=message)

    def given_up(self, task: Task) -> Failure | None:
        """Why the workers of `task` are not started again; None: they may be."""
        return self._given_up.get(kind_of_workers(task))

    def require_any(self) -> None:
        """Raise StartFailed where kinds were given up and nothing has started at all: there is no result."""
        if self._given_up and not self._started:
            first = next(iter(self._given_up.values()))
            raise StartFailed(f"{first.message} (log: {first.log})", first)
