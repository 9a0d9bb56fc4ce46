"""Rank 0's side of a launch: waits for the agents, turns a list of tasks into sets of workers, and each task into an end.

Consecutive tasks of one group share a set of workers for as long as it is healthy; after a failure a new set goes on. The
workers of groups that are to be compared live at the same time and take turns (`hvbench.launch.turns`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from hvbench.errors import Interrupted, LaunchError
from hvbench.launch.channel import Hub
from hvbench.launch.context import Context
from hvbench.launch.lane import Crew, Lane, OnProgress
from hvbench.launch.messages import Broken, Hello, Lost, Quit
from hvbench.launch.placement import Member, unite_names
from hvbench.launch.starts import Starts
from hvbench.launch.task import Task, TaskEnd, refuse
from hvbench.launch.turns.scheduler import TurnLimits
from hvbench.launch.turns.server import TurnServer
from hvbench.launch.workers import STOP_SECONDS, LaunchState, WorkerSet, describe_defect

JOIN_SECONDS = 120.0
LISTEN_SECONDS = 1.0  # between two looks at all clocks


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
        """Run `tasks` in their order, those of each stretch side by side.

        Args:
            tasks: consecutive ones of one group share workers; groups that are beside each other take turns.
            on_progress: is called with the index of a running task and each progress report of rank 0's worker; where it returns True
                the task is trained no further, if its request says that it `may_end_early`.

        Yields:
            The index of a task and how it ended, for every task, in the order of their ends.

        Raises:
            LaunchError: an agent is gone; or, after the end of every task, no worker of this launch has ever started
                (StartFailed).
            Interrupted: a signal asked for the end.
        """
        crew = Crew(start=self._start, refuse=self._refuse, starts=self.starts, on_progress=on_progress)
        position = 0
        while position < len(tasks):
            stretch = take_stretch(tasks, position)
            groups = list(split_groups(stretch, first=position).values())
            if len(groups) == 1 or len({member.host for member in self.members.values()}) > 1:
                for group in groups:
                    yield from self._run_lanes([Lane(group, crew=crew)])
            else:
                yield from self._run_in_turns(groups, crew=crew, seed=position)
            position += len(stretch)
        self.starts.require_any()

    def _run_in_turns(
        self, groups: Sequence[Mapping[int, Task]], *, crew: Crew, seed: int
    ) -> Iterator[tuple[int, TaskEnd]]:
        """The ends of tasks of several groups, whose workers live at the same time and take turns."""
        names = [next(iter(group.values())).turn_name for group in groups]
        # No limit of its own: every set of workers has one for each task, and whoever waits for it goes on after that.
        with TurnServer(names, seed=(seed,), limits=TurnLimits(give_up_seconds=math.inf)) as turns:
            yield from self._run_lanes([Lane(group, crew=crew, turns=turns) for group in groups])

    def _run_lanes(self, lanes: Sequence[Lane]) -> Iterator[tuple[int, TaskEnd]]:
        """The ends of all tasks of `lanes`, at the same time; at the end, however it comes, no workers are left."""
        patience_seconds = STOP_SECONDS
        try:
            while not all(lane.is_done for lane in lanes):
                has_ended = False
                for lane in lanes:
                    for end in lane.advance():
                        has_ended = True
                        yield end
                if not has_ended:
                    rests = [lane.rest_seconds for lane in lanes if not lane.is_done]
                    self.state.listen(min([LISTEN_SECONDS, *rests]))
        except Interrupted:
            patience_seconds = 0.0  # a launcher that was told to stop may kill this process in a second
            raise
        finally:
            with contextlib.ExitStack() as stack:  # each, whatever happens to another
                for lane in lanes:
                    stack.callback(lane.stop, patience_seconds=patience_seconds)

    def _start(self, tasks: Sequence[Task], variables: Mapping[str, str]) -> WorkerSet:
        """Start workers for `tasks`."""
        return WorkerSet(self.state, tasks, number=next(self.numbers), variables=variables)

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


def take_stretch(tasks: Sequence[Task], position: int) -> Sequence[Task]:
    """The tasks from `position` on that share a set of workers, or whose workers live at the same time."""
    first = tasks[position]

    def belongs(task: Task) -> bool:
        return task.group == first.group if first.beside is None else task.beside == first.beside

    return list(itertools.takewhile(belongs, itertools.islice(tasks, position, None)))


def split_groups(stretch: Sequence[Task], *, first: int) -> dict[tuple, dict[int, Task]]:
    """Group -> its tasks by their index, of which `first` is that of the stretch's first."""
    groups: dict[tuple, dict[int, Task]] = {}
    for index, task in enumerate(stretch, start=first):
        groups.setdefault(task.group, {})[index] = task
    return groups


def running_tasks(tasks: Sequence[Task], ended: Collection[int]) -> list[int]:
    """Indices of the tasks that run, or are next, when those with the indices `ended` have: the first of each group."""
    position = 0
    while position < len(tasks):
        stretch = take_stretch(tasks, position)
        groups = split_groups(stretch, first=position).values()
        if left := [
            next(index for index in group if index not in ended) for group in groups if set(group) - set(ended)
        ]:
            return sorted(left)
        position += len(stretch)
    return []


def next_number(logs: Path) -> int:
    """The number of the next generation: those whose logs an earlier session left in this folder are not reused."""
    found = (re.match(r"generation(\d{4,9})-rank", path.name) for path in logs.glob("generation*-rank*.log"))
    return max((int(match[1]) for match in found if match), default=-1) + 1
