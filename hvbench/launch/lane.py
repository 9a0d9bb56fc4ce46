"""Tasks that run one after the other, and the workers that run them: rank 0 goes along several lanes at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hvbench.launch.messages import Progress
from hvbench.launch.starts import Starts
from hvbench.launch.task import Task, TaskEnd
from hvbench.launch.turns import VARIABLE
from hvbench.launch.turns.server import TurnServer
from hvbench.launch.workers import WorkerSet

WAIT_SECONDS = 0.2  # between looks whether new workers may be started

# (index of the task, report of rank 0's worker) -> whether the task is to be trained no further
OnProgress = Callable[[int, Progress], bool | None]
Start = Callable[[Sequence[Task], Mapping[str, str]], WorkerSet]  # tasks, and what their workers' environment has more


@dataclass(frozen=True, kw_only=True)
class Crew:
    """What lanes need of the launch that they belong to."""

    start: Start
    refuse: Callable[[Task], TaskEnd | None]  # the end of a task that is not tried
    starts: Starts
    on_progress: OnProgress


class Lane:
    """Tasks that share workers for as long as these are healthy; after a failure new ones go on with the next task.

    With `turns` the workers take turns with those of other lanes, under the name of their framework. New ones are not
    started beside another lane's steps: they wait for the end of its point, and it waits for them before the next.
    """

    def __init__(self, tasks: Mapping[int, Task], *, crew: Crew, turns: TurnServer | None = None) -> None:
        """Args: `tasks` of one group, by the index that their ends are told by."""
        self.tasks = list(tasks.items())
        self.crew = crew
        self.turns = turns
        self.position = 0
        self.workers: WorkerSet | None = None
        self.lost_seconds = 0.0  # of the present task, in starts that failed
        self.ended_early: int | None = None  # the position of the task whose workers were told so

    @property
    def is_done(self) -> bool:
        """Whether every task has ended."""
        return self.position == len(self.tasks)

    @property
    def rest_seconds(self) -> float:
        """How long the lane may be left alone: until its workers' time is up, or until there may be new ones."""
        return self.workers.ends_at - time.monotonic() if self.workers else WAIT_SECONDS

    def advance(self) -> Iterator[tuple[int, TaskEnd]]:
        """Yield (index, end) of the tasks that have ended by now; start workers where there are none and may be."""
        while not self.is_done:
            index, task = self.tasks[self.position]
            if self.workers is None and (refused := self.crew.refuse(task)):
                yield index, self._pass(refused)
                continue
            if self.workers is None and not self._start():
                return
            end = self.workers.look()
            if end is None:
                return
            if end.failure and end.failure.phase == "start":
                self.crew.starts.note_failure(task, end.failure)
                self.lost_seconds += end.seconds
                self.stop()
                continue
            self.crew.starts.note_success(task)
            yield index, self._pass(end)
            if end.failure or self.is_done:
                self.stop()
            else:
                self.workers.take_up(self.workers.index + 1)
        if self.turns:
            self.turns.retire(self._arm)

    def stop(self, *, patience_seconds: float | None = None) -> None:
        """End the workers, if there are any."""
        workers, self.workers = self.workers, None
        if workers:
            workers.stop(**{} if patience_seconds is None else {"patience_seconds": patience_seconds})

    @property
    def _arm(self) -> str:
        return self.tasks[0][1].turn_name

    def _start(self) -> bool:
        """Start workers for the rest of the tasks; False where others must come to the end of their point first."""
        if self.turns and self.turns.is_busy:
            return False
        variables = {VARIABLE: self.turns.variable(self._arm)} if self.turns else {}
        self.workers = self.crew.start([task for _, task in self.tasks[self.position :]], variables)
        self.workers.on_progress = self._report
        if self.turns:
            turns = self.turns
            self.workers.waited_seconds = lambda: turns.waited_seconds(self._arm)
            self.workers.describe_wait = lambda: turns.describe_wait(self._arm)
        self.workers.take_up(0)
        return True

    def _pass(self, end: TaskEnd) -> TaskEnd:
        """The end of the present task, with what failed starts took; the next one is the present one then."""
        seconds, self.lost_seconds = end.seconds + self.lost_seconds, 0.0
        self.position += 1
        return replace(end, seconds=seconds, in_turns=self.turns is not None)

    def _report(self, message: Progress) -> None:
        if message.rank or self.is_done:
            return
        ends = self.crew.on_progress(self.tasks[self.position][0], message)
        # A late report may still be of the job before.
        if ends and self.workers and message.index == self.workers.index and self.ended_early != self.position:
            self.ended_early = self.position
            self.workers.end_early()
