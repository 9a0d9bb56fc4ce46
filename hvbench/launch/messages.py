"""The messages between rank 0 and the agents: frozen objects here, JSON objects with a `type` on the channel.

Rank 0 sends `Start`, `Where`, `EndEarly`, `Stop` and `Quit`. An agent sends `Hello` first, then reports on its workers, which name
the worker's rank: rank 0's agent also reports on the ranks that mpirun started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

from hvbench.launch.task import FailureStatus

Json = dict[str, Any]


class Role(StrEnum):
    """What a process of a set of workers does."""

    RANK = "rank"  # trains
    SERVER = "server"  # is a parameter server beside the ranks


@dataclass(frozen=True, kw_only=True)
class WorkerDescription:
    """Who one worker is and what it has to do: the content of `generation.json`."""

    framework: str
    rank: int
    world_size: int
    local_rank: int
    host: str
    threads: int
    device: str
    jobs: list[Json]  # requests; see `hvbench.launch.requests`
    strategy: str = "horovod"
    memory_limit_bytes: int | None = None
    role: Role = Role.RANK
    command: list[str] | None = None  # of a script, which is executed instead of a worker
    folder: str = "."  # in which it is executed
    environment: dict[str, str] = field(default_factory=dict)  # of that command: variables that its suite sets
    python: str | None = None  # the interpreter of another environment; None: that of the agent
    agent_pid: int | None = None  # whose end ends the worker; None: under mpirun, which ends it

    @classmethod
    def from_json(cls, fields: Json) -> Self:
        """The description that `vars` of one gives; raises TypeError or ValueError when a field is missing or unknown."""
        return cls(**fields | {"role": Role(fields.get("role", Role.RANK))})


@dataclass(frozen=True, kw_only=True)
class WorkerFailure:
    """Why one worker ended, in its own words or in its agent's."""

    status: FailureStatus
    message: str
    phase: str = "start"
    index: int = -1  # of the job; -1: before the first
    is_echo: bool = False  # it only saw that another rank was gone
    step: int | None = None  # steps of the job that it had done; None: none
    loss: float | None = None  # of the last of them


class Message:
    """Base of all messages."""

    kind: ClassVar[str]

    def to_json(self) -> Json:
        """The message as it goes on the channel."""
        return {"type": self.kind, **vars(self)}

    @classmethod
    def from_json(cls, fields: Json) -> Self:
        """Inverse of `to_json`, less the `type`; raises TypeError for other fields than the message has."""
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Hello(Message):
    """An agent has joined; the fields are those of `hvbench.launch.placement.Member`."""

    kind = "hello"
    rank: int
    host: str
    pid: int
    cores: list[int]
    cgroup_cpu_quota: float | None
    machine: str = ""


@dataclass(frozen=True, kw_only=True)
class Start(Message):
    """Start this rank's worker and the parameter servers beside it, or with `by_mpirun` all ranks' workers in one mpirun."""

    kind = "start"
    generation: int
    logs: str  # the run's folder of logs, which this host may not share
    token: str  # name of a file there by which an agent sees whether it does
    environment: dict[str, str]
    workers: list[WorkerDescription]  # the rank's own first
    link_bits_per_second: int | None = None
    by_mpirun: bool = False

    def to_json(self) -> Json:
        return super().to_json() | {"workers": [vars(worker) for worker in self.workers]}

    @classmethod
    def from_json(cls, fields: Json) -> Self:
        return cls(**fields | {"workers": [WorkerDescription.from_json(worker) for worker in fields["workers"]]})


@dataclass(frozen=True, kw_only=True)
class Where(Message):
    """Report what every thread of that rank's worker is doing."""

    kind = "where"
    generation: int
    rank: int


@dataclass(frozen=True, kw_only=True)
class EndEarly(Message):
    """Let the ranks train job `index` no further; their workers go on with the next one."""

    kind = "end_early"
    generation: int
    index: int


def end_file(index: int) -> str:
    """Name of the file in a worker's folder that ends the training of job `index` early."""
    return f"end-{index}"


@dataclass(frozen=True, kw_only=True)
class Stop(Message):
    """End the workers of that generation."""

    kind = "stop"
    generation: int


@dataclass(frozen=True, kw_only=True)
class Quit(Message):
    """End the workers and yourself."""

    kind = "quit"


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """Where one rank's worker is."""

    kind = "progress"
    generation: int
    rank: int
    index: int  # of the job within its generation
    phase: str
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    timed_tokens: int = 0
    timed_seconds: float = 0.0
    validation_step: int = 0  # of the last evaluation over all ranks; 0: none since training began
    validation_loss: float | None = None  # None: not finite
    validation_tokens: int = 0  # that all ranks had trained on by then
    validation_seconds: float = 0.0  # of training by then
    started_at: str = ""  # when the launch began: UTC, ISO 8601, which rank 0 adds


@dataclass(frozen=True, kw_only=True)
class Result(Message):
    """What one rank's worker wrote of one job; not validated yet."""

    kind = "result"
    generation: int
    rank: int
    index: int
    result: Json


@dataclass(frozen=True, kw_only=True)
class Exited(Message):
    """One rank's worker has ended."""

    kind = "exited"
    generation: int
    rank: int
    returncode: int
    failure: WorkerFailure
    log: str | None = None
    log_tail: str = ""

    def to_json(self) -> Json:
        return super().to_json() | {"failure": vars(self.failure)}

    @classmethod
    def from_json(cls, fields: Json) -> Self:
        failure = fields["failure"]
        return cls(**fields | {"failure": WorkerFailure(**failure | {"status": FailureStatus(failure["status"])})})


@dataclass(frozen=True, kw_only=True)
class StackDump(Message):
    """What every thread of one rank's worker was doing: `faulthandler`'s text, empty if the worker could not answer."""

    kind = "stack"
    generation: int
    rank: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Stopped(Message):
    """The workers of that generation have ended, here."""

    kind = "stopped"
    generation: int


@dataclass(frozen=True, kw_only=True)
class Broken(Message):
    """The agent cannot continue."""

    kind = "broken"
    message: str


@dataclass(frozen=True, kw_only=True)
class Lost(Message):
    """The agent's connection is closed. Never sent: rank 0's end of the channel puts it where the messages come in."""

    kind = "lost"


SENT = (Hello, Start, Where, EndEarly, Stop, Quit, Progress, Result, Exited, StackDump, Stopped, Broken)
KINDS: dict[str, type[Message]] = {message.kind: message for message in SENT}


def read_message(values: Any) -> Message:
    """The message that a JSON value holds; raises ValueError when it holds none."""
    fields = dict(values) if isinstance(values, dict) else {}
    kind = fields.pop("type", None)
    try:
        return KINDS[kind].from_json(fields)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a message of hvbench: type {ascii(kind)[:40]}: {error}") from None
