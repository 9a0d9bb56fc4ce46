"""What rank 0 is asked to run, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hvbench.errors import LaunchError

GO_ON = "what was measured is safe, go on with --resume"  # ends the message of a launch that cannot continue


def without_advice(message: str) -> str:
    """`message` for a command that has nothing to go on with."""
    return message.removesuffix(f"; {GO_ON}")


class FailureStatus(StrEnum):
    """Why a task has no results; a record keeps the value as the status of its outcome."""

    OOM = "oom"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What ended a task on all ranks: the first cause, where it happened, and where to read more."""

    status: FailureStatus
    message: str
    rank: int | None = None
    phase: str | None = None
    log: str | None = None  # path of the log of that rank's worker
    step: int | None = None  # that many steps of a training were done, at least; None: none
    last_loss: float | None = None  # of the last of them


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job as the launcher needs it: what the workers get, which tasks can share workers, and the time limit."""

    group: tuple  # consecutive tasks with equal groups share one set of workers
    beside: tuple | None = None  # workers of consecutive tasks with equal ones live at the same time and take turns
    framework: str
    arm: str = ""  # the name by which its workers take turns with those of other groups; empty: their framework's
    world_size: int
    device: str
    job: dict[str, Any]  # the worker's request, as JSON; see `hvbench.launch.requests`
    timeout_seconds: float
    memory_limit_bytes: int | None = None  # of each worker
    strategy: str = "horovod"  # how the ranks are connected
    settings: dict[str, str] = field(default_factory=dict)  # environment of the workers, the same on every rank
    by_mpirun: bool = False  # its workers have to be MPI ranks
    servers: int = 0  # processes beside the ranks
    command: tuple[str, ...] = ()  # what is executed on every rank instead of a worker
    folder: str = "."  # in which it is
    variables: dict[str, str] = field(default_factory=dict)  # of that command's environment alone
    link_bits_per_second: int | None = None  # what the hosts' links are shaped to while its workers live

    @property
    def turn_name(self) -> str:
        """The name by which its workers take turns."""
        return self.arm or self.framework


@dataclass(frozen=True, kw_only=True)
class TaskEnd:
    """How a task ended: every rank's result, or the failure that ended it."""

    results: list[dict[str, Any]]  # what the workers wrote, by rank; not validated yet
    failure: Failure | None
    generation: int  # number of the set of workers; -1: none was started
    seconds: float  # without what it waited for its turns
    waited_seconds: float = 0.0
    in_turns: bool = False  # workers of other tasks lived at the same time and took turns with its own


def refuse(reason: str) -> TaskEnd:
    """The end of a task that was not tried."""
    failure = Failure(status=FailureStatus.FAILED, phase="start", message=reason)
    return TaskEnd(results=[], failure=failure, generation=-1, seconds=0.0)


class StartFailed(LaunchError):
    """No worker of a launch has started, of whatever kind; every task has ended with its own `failure` by then."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure
