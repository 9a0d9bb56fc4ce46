"""The state of one set of workers: what its ranks have reported, and which of their ends explains the others.

A *generation* is one set of workers, one per rank, of one framework. It runs jobs one after the other for as long as it
is healthy; the first failure ends it on all ranks, and a new generation continues with the next job.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import IntEnum

from hvbench.launch.diagnosis import Stack, read_stack
from hvbench.launch.messages import Exited, Json, Message, Progress, Result, StackDump
from hvbench.launch.script import EVALUATES, FINISHED, STOPPED
from hvbench.launch.task import FailureStatus


class Cause(IntEnum):
    """How much one worker's end explains, the most first."""

    OUT_OF_MEMORY = 0  # explains whatever else went wrong
    KILLED = 1  # no process kills itself because another rank is gone
    FAILED = 2
    SILENT_EXIT = 3
    ECHO = 4  # it only saw that another rank was gone


@dataclass(kw_only=True)
class Generation:
    """A running set of workers, as far as their agents have reported."""

    number: int
    ranks: list[int]
    by_mpirun: bool = False
    results: dict[int, dict[int, Json]] = field(default_factory=dict)  # index of the job -> rank -> result
    ends: dict[int, Exited] = field(default_factory=dict)
    progress: dict[int, Progress] = field(default_factory=dict)
    stacks: dict[int, Stack] = field(default_factory=dict)

    def note(self, message: Message) -> bool:
        """Take in a report; False for one that is not about these workers, such as a late one on those before."""
        if getattr(message, "generation", None) != self.number:
            return False
        match message:
            case Result():
                self.results.setdefault(message.index, {})[message.rank] = message.result
            case Exited():
                self.ends[message.rank] = message
            case StackDump():
                self.stacks[message.rank] = read_stack(message.text)
            case Progress():
                self.progress[message.rank] = message
        return True

    def unfinished(self, index: int) -> list[int]:
        """Ranks without a result of job `index`."""
        return [rank for rank in self.ranks if rank not in self.results.get(index, {})]

    def agent(self, rank: int) -> int:
        """The rank whose agent watches that rank's worker."""
        return 0 if self.by_mpirun else rank

    def phase(self, rank: int) -> str:
        """Where the rank's worker was last seen."""
        return self.progress[rank].phase if rank in self.progress else "start"

    def training(self, rank: int, index: int) -> Json:
        """`step` and `last_loss` of a Failure: how far the rank had come with job `index` when it was last seen."""
        seen = self.progress.get(rank)
        if seen is None or seen.index != index or not seen.step:
            return {}
        return {"step": seen.step, "last_loss": seen.loss}

    def has_started(self) -> bool:
        """Whether every rank has loaded its framework and joined the others."""
        first = self.results.get(0, {})
        return all(rank in first or (rank in self.progress and self.progress[rank].index >= 0) for rank in self.ranks)

    def has_ended_before(self, index: int) -> bool:
        """Whether some rank's worker has ended without a result of job `index`."""
        return any(rank in self.ends for rank in self.unfinished(index))

    def split_by_stop(self, index: int) -> tuple[int, int] | None:
        """(a rank of a script that its own evaluation has ended early, a rank that trains on); None where there are not both."""
        states = {rank: self._phase_of(rank, index) for rank in self.ranks}
        stopped = [rank for rank, phase in states.items() if phase == STOPPED or self._has_stopped(rank, index)]
        done = (None, STOPPED, EVALUATES, FINISHED)
        going = [rank for rank in self.unfinished(index) if states[rank] not in done]
        return (stopped[0], going[0]) if stopped and going else None

    def _phase_of(self, rank: int, index: int) -> str | None:
        seen = self.progress.get(rank)
        return seen.phase if seen and seen.index == index else None

    def _has_stopped(self, rank: int, index: int) -> bool:
        """Whether its result says so, which nobody has validated yet."""
        samples = self.results.get(index, {}).get(rank, {}).get("samples")
        return isinstance(samples, dict) and bool(samples.get("stopped_by"))

    def first_cause(self) -> Exited:
        """The end that explains the others; of equal ones, the lowest rank's."""
        return min(self.ends.values(), key=lambda end: (classify(end), end.rank))


def classify(end: Exited) -> Cause:
    """What kind of cause one worker's end is."""
    if end.failure.status == FailureStatus.OOM:
        return Cause.OUT_OF_MEMORY
    if end.returncode == -signal.SIGKILL:
        return Cause.KILLED
    if end.failure.is_echo:
        return Cause.ECHO
    return Cause.FAILED if end.returncode else Cause.SILENT_EXIT
