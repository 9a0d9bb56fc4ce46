"""What rank 0 is asked to run, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job as the launcher needs it: what the workers get, who can share workers with it, and its time limit."""

    group: tuple  # tasks next to each other with equal groups share a generation
    framework: str
    world_size: int
    device: str
    job: dict[str, Any]  # passed on to `hvbench.worker.jobs`
    timeout_seconds: float
    memory_limit_bytes: int | None = None  # of each worker
    strategy: str = "horovod"  # how the workers find each other
    settings: dict[str, str] = field(default_factory=dict)  # environment of the workers, the same on every rank
    by_mpirun: bool = False  # its workers have to be ranks of MPI
    servers: int = 0  # processes beside the ranks; only with mpirun
    link_bits_per_second: int | None = None  # what the hosts' links are shaped to while its workers live


@dataclass(frozen=True, kw_only=True)
class TaskEnd:
    """How a task ended: every rank's result, or the failure that ended it."""

    results: list[dict[str, Any]]
    failure: dict[str, Any] | None  # status, rank, phase, message, log
    generation: int
    seconds: float


def refuse(reason: str) -> TaskEnd:
    """The end of a task that was not tried."""
    failure = {"status": "failed", "rank": None, "phase": "start", "message": reason, "log": None}
    return TaskEnd(results=[], failure=failure, generation=-1, seconds=0.0)
