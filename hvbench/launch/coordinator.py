"""Rank 0's side of a launch: waits for the agents, turns a list of tasks into sets of workers, and each task into an end.

Consecutive tasks of one group share a set of workers for as long as it is healthy; after a failure a new set goes on.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hvbench.errors import Interrupted, LaunchError
from hvbench.launch.channel import Hub
from hvbench.launch.context import Context
from hvbench.launch.messages import Broken, Hello, Lost, Message, Progress, Quit
from hvbench.launch.placement import Member, unite_names
from hvbench.launch.starts import Starts
from hvbench.launch.task import Task, TaskEnd, refuse
from hvbench.launch.workers import LaunchState, WorkerSet, describe_defect

JOIN_SECONDS = 120.0
STOP_SECONDS = 60.0  # an agent that does not answer for so long is gone, host and all

OnProgress = Callable[[int, Progress], None]  # (index of the task, report of rank 0's worker)


class Coordinator:
    """Runs tasks on the members of a launch."""

    def __init__(self, hub: Hub, context: Context, *, run_path: Path) -> None:
        self.context = context
        self.state = LaunchState(hub=hub, logs=run_path / "logs")
        self.starts = Starts()
        self.numbers = itertools.count(next_number(self.state.logs))

    @property
    def members(self) -> dict[int, Member]:
        """The agents that have joined, by rank."""
        return self.state.members

    def wait_for_members(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Wait until every rank's agent has joined; raises LaunchError naming the ranks that have not.

        `check` is called about once a second, to raise when an agent is known not to come.
        """
        deadline = time.monotonic() + JOIN_SECONDS
        while len(self.members) < self.context.size:
            received = self.state.hub.receive(min(1.0, deadline - time.monotonic()))
            if received is None:
                check()
                if time.monotonic() < deadline:
                    continue
                missing = sorted(set(range(self.context.size)) - set(self.members))
                raise LaunchError(f"rank {', '.join(map(str, missing))} did not join within {JOIN_SECONDS:.0f} s")
            rank, message = received
            if isinstance(message, Hello):
                self.members[rank] = Member(**vars(message))
            elif isinstance(message, Lost | Broken):
                raise LaunchError(f"rank {rank}: its agent ended as soon as it had joined{describe_defect(message)}")
        self.state.members = unite_names(self.members)

    def run(
        self, tasks: Sequence[Task], *, on_progress: OnProgress = lambda index, message: None
    ) -> Iterator[tuple[int, TaskEnd]]:
        """Run `tasks` in their order.

        Args:
            tasks: consecutive ones of one group share workers.
            on_progress: is called with the index of the running task and each progress report of rank 0's worker.

        Yields:
            The index of a task and how it ended, for every task.

        Raises:
            LaunchError: an agent is gone; or, after the end of every task, no worker of this launch has ever started
                (StartFailed).
            Interrupted: a signal asked for the end.
        """
        position, seconds = 0, 0.0
        while position < len(tasks):
            if refused := self._refuse(tasks[position]):
                yield position, replace(refused, seconds=seconds)
                position, seconds = position + 1, 0.0
                continue
            sharing = take_group(tasks, position)
            for end in self._run_generation(sharing, first=position, on_progress=on_progress):
                if end.failure and end.failure.phase == "start":
                    self.starts.note_failure(tasks[position], end.failure)
                    seconds += end.seconds
                    break
                self.starts.note_success(tasks[position])
                yield position, replace(end, seconds=seconds + end.seconds)
                position, seconds = position + 1, 0.0
        self.starts.require_any()

    def _refuse(self, task: Task) -> TaskEnd | None:
        """The end of a task that is not tried: its workers cannot run here, or failed to start too often."""
        if task.by_mpirun and len({member.host for member in self.members.values()}) > 1:
            return refuse("workers that mpirun starts run on one host; this launch has several")
        failure = self.starts.given_up(task)
        return TaskEnd(results=[], failure=failure, generation=-1, seconds=0.0) if failure else None

    def quit(self) -> None:
        """Let every agent end, workers included."""
        for rank in self.members:
            self.state.hub.send(rank, Quit())

    def _run_generation(self, tasks: Sequence[Task], *, first: int, on_progress: OnProgress) -> Iterator[TaskEnd]:
        """The ends of `tasks` up to the first failure, in one set of workers; `first` is the index of the first."""
        workers = WorkerSet(self.state, tasks, number=next(self.numbers))
        generation = workers.generation
        patience_seconds = STOP_SECONDS
        try:
            for index, task in enumerate(tasks):
                begun = time.monotonic()
                failure = workers.wait(index, task, on_report=report_progress(on_progress, first + index))
                results = generation.results.get(index, {})
                yield TaskEnd(
                    results=[] if failure else [results[rank] for rank in generation.ranks],
                    failure=failure,
                    generation=generation.number,
                    seconds=time.monotonic() - begun,
                )
                if failure:
                    break
        except Interrupted:
            patience_seconds = 0.0  # a launcher that was told to stop may kill this process in a second
            raise
        finally:
            workers.stop(patience_seconds=patience_seconds)


def report_progress(on_progress: OnProgress, index: int) -> Callable[[Message], None]:
    """What passes rank 0's progress on, as that of the task with this index."""

    def report(message: Message) -> None:
        if isinstance(message, Progress) and message.rank == 0:
            on_progress(index, message)

    return report


def take_group(tasks: Sequence[Task], position: int) -> Sequence[Task]:
    """The tasks from `position` on that share a set of workers."""
    group = tasks[position].group
    return list(itertools.takewhile(lambda task: task.group == group, tasks[position:]))


def next_number(logs: Path) -> int:
    """The number of the next generation: those whose logs an earlier session left in this folder are not reused."""
    found = (re.match(r"generation(\d{4,9})-rank", path.name) for path in logs.glob("generation*-rank*.log"))
    return max((int(match[1]) for match in found if match), default=-1) + 1
