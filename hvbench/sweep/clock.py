"""When each launch of a sweep began: where the one before it on the same workers, or the stretch before it, ended."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hvbench.io.clock import utc_now
from hvbench.launch.task import Task


class StartTimes:
    """The begin of every task that runs, from the ends that are noted; tasks of groups that are beside each other begin together."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._last = utc_now()  # when any task ended
        self._begun: dict[
            Hashable, str
        ] = {}  # group, or what groups beside each other share -> when its next task began

    def started_at(self, index: int) -> str:
        """When a task that runs, or has just ended, began: UTC, ISO 8601."""
        task = self._tasks[index]
        stretch = ("beside", task.group if task.beside is None else task.beside)
        return self._begun.get(task.group) or self._begun.setdefault(stretch, self._last)

    def note_end(self, index: int) -> None:
        """A task has ended just now, and the next of its group begins."""
        self.started_at(index)
        self._last = self._begun[self._tasks[index].group] = utc_now()
