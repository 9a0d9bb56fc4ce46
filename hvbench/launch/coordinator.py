"""Rank 0's side: turns a list of jobs into generations of workers, and each job into a result or an outcome.

A *generation* is one set of workers, one a rank, of one framework. It runs jobs one after the other and lives as long
as it is healthy; the first failure ends it on all ranks, and a fresh one goes on with the next job.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvbench.errors import LaunchError
from hvbench.launch.channel import Hub, Message
from hvbench.launch.context import Context

JOIN_SECONDS = 60.0
STOP_SECONDS = 20.0
GRACE_SECONDS = 2.0  # peers of a dead rank notice within this time; the first cause is then picked among all
MAX_FAILED_STARTS = 3


@dataclass(frozen=True, kw_only=True)
class Member:
    """An agent that takes part."""

    rank: int
    host: str
    pid: int
    cores: list[int]
    cgroup_cpu_quota: float | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job as the launcher needs it: what the workers get, who can share workers with it, and its time limit."""

    group: tuple  # tasks next to each other with equal groups share a generation
    framework: str
    world_size: int
    device: str
    job: dict[str, Any]  # passed on to `hvbench.worker`
    timeout_seconds: float


@dataclass(frozen=True, kw_only=True)
class TaskEnd:
    """How a task ended: every rank's result, or the failure that ended it."""

    results: list[dict[str, Any]]
    failure: dict[str, Any] | None  # status, rank, phase, message, log
    generation: int
    seconds: float


@dataclass(kw_only=True)
class Generation:
    """A running set of workers."""

    number: int
    ranks: list[int]
    results: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)  # index -> rank -> result
    ends: dict[int, Message] = field(default_factory=dict)
    phases: dict[int, str] = field(default_factory=dict)

    def first_cause(self) -> tuple[int, Message]:
        """The end that explains the others: a kill or an exception of a rank's own before a peer's echo of it."""

        def weight(item: tuple[int, Message]) -> tuple[int, int]:
            rank, end = item
            failure = end["failure"]
            if failure["status"] == "oom":
                return (0, rank)
            if failure.get("is_echo"):
                return (3, rank)
            return (1 if end["returncode"] != 0 else 2, rank)

        return min(self.ends.items(), key=weight)


class Coordinator:
    """Runs tasks on the members of a launch. `on_progress(index, message)` hears rank 0's worker."""

    def __init__(self, hub: Hub, context: Context, *, run_path: Path) -> None:
        self.hub = hub
        self.context = context
        self.logs = run_path / "logs"
        self.numbers = itertools.count(self._next_number())
        self.members: dict[int, Member] = {}
        self.on_progress: Callable[[Message], None] = lambda message: None

    def wait_for_members(self) -> None:
        """Wait until every rank's agent has said hello; raises LaunchError naming the ranks that did not."""
        deadline = time.monotonic() + JOIN_SECONDS
        while len(self.members) < self.context.size:
            received = self.hub.receive(deadline - time.monotonic())
            if received is None:
                missing = sorted(set(range(self.context.size)) - set(self.members))
                raise LaunchError(f"rank {', '.join(map(str, missing))} did not join within {JOIN_SECONDS:.0f} s")
            rank, message = received
            if message["type"] == "hello":
                fields = {key: message[key] for key in Member.__dataclass_fields__}
                self.members[rank] = Member(**fields)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskEnd]]:
        """Yield (index of the task, its end) for every task, in order; raises LaunchError when workers cannot start."""
        position, failed_starts = 0, 0
        while position < len(tasks):
            last = position
            while last < len(tasks) and tasks[last].group == tasks[position].group:
                last += 1
            start_failure = None
            for end in self._run_generation(tasks[position:last]):
                if end.failure and end.failure["phase"] == "start":
                    start_failure = end.failure
                    break
                failed_starts = 0
                yield position, end
                position += 1
            if start_failure:
                failed_starts += 1
                if failed_starts == MAX_FAILED_STARTS:
                    raise LaunchError(
                        f"{tasks[position].framework} workers failed to start {MAX_FAILED_STARTS} times: "
                        f"rank {start_failure['rank']}: {start_failure['message']} (log: {start_failure['log']})"
                    )

    def quit(self) -> None:
        """Let every agent end, workers included."""
        for rank in self.members:
            self.hub.send(rank, {"type": "quit"})

    def _run_generation(self, tasks: Sequence[Task]) -> Iterator[TaskEnd]:
        generation, server = self._start(tasks)
        try:
            for index, task in enumerate(tasks):
                begun = time.monotonic()
                limit = task.timeout_seconds + (self._start_seconds(task) if index == 0 else 0.0)
                failure = self._wait(generation, index, deadline=begun + limit, limit=task.timeout_seconds)
                results = generation.results.get(index, {})
                yield TaskEnd(
                    results=[results[rank] for rank in generation.ranks] if not failure else [],
                    failure=failure,
                    generation=generation.number,
                    seconds=time.monotonic() - begun,
                )
                if failure:
                    return
        finally:
            self._stop(generation)
            server.stop()

    def _start(self, tasks: Sequence[Task]) -> tuple[Generation, Any]:
        from horovod.runner.http.http_server import RendezvousServer

        first = tasks[0]
        ranks = list(range(first.world_size))
        generation = Generation(number=next(self.numbers), ranks=ranks)
        slots = assign_slots([self.members[rank] for rank in ranks])
        server = RendezvousServer()
        port = server.start()
        server.init(slots)
        token = f".{secrets.token_hex(8)}.token"
        (self.logs / token).touch()
        for rank, slot in zip(ranks, slots, strict=True):
            threads = threads_per_worker([self.members[r] for r in ranks], host=slot.hostname)
            self.hub.send(
                rank,
                {
                    "type": "start",
                    "generation": generation.number,
                    "logs": str(self.logs.resolve()),
                    "token": token,
                    "environment": worker_settings(slot, address=self.hub.address.hosts[0], port=port, threads=threads),
                    "description": {
                        "framework": first.framework,
                        "rank": rank,
                        "world_size": first.world_size,
                        "local_rank": slot.local_rank,
                        "host": slot.hostname,
                        "threads": threads,
                        "device": first.device,
                        "jobs": [task.job for task in tasks],
                    },
                },
            )
        self._token = self.logs / token
        return generation, server

    def _wait(self, generation: Generation, index: int, *, deadline: float, limit: float) -> dict[str, Any] | None:
        """Wait until every rank has finished job `index`; a failure otherwise."""
        while len(generation.results.get(index, {})) < len(generation.ranks):
            received = self.hub.receive(min(1.0, deadline - time.monotonic()))
            if received is not None:
                self._note(generation, *received)
                if self._has_ended_early(generation, index):
                    return self._describe_failure(generation, index)
            elif time.monotonic() >= deadline:
                waiting = [rank for rank in generation.ranks if rank not in generation.results.get(index, {})]
                phases = {rank: generation.phases.get(rank, "start") for rank in waiting}
                where = ", ".join(f"rank {rank} in {phase}" for rank, phase in phases.items())
                log = str(self.logs / f"generation{generation.number:04d}-rank{waiting[0]}.log")
                message = f"not finished after {limit:.0f} s: {where}"
                return {"status": "timeout", "rank": waiting[0], "phase": phases[waiting[0]], "message": message, "log": log}
        return None

    def _note(self, generation: Generation, rank: int, message: Message) -> None:
        if message["type"] == "lost":
            raise LaunchError(f"rank {rank} on {self.members[rank].host}: its agent is gone; what was measured is safe")
        if message.get("generation") != generation.number:
            return
        if message["type"] == "result":
            generation.results.setdefault(message["index"], {})[rank] = message["result"]
        elif message["type"] == "exited":
            generation.ends[rank] = message
        elif message["type"] == "progress":
            generation.phases[rank] = message["phase"]
            if rank == 0:
                self.on_progress(message)

    def _has_ended_early(self, generation: Generation, index: int) -> bool:
        return any(rank not in generation.results.get(index, {}) for rank in generation.ends)

    def _describe_failure(self, generation: Generation, index: int) -> dict[str, Any]:
        deadline = time.monotonic() + GRACE_SECONDS
        while len(generation.ends) < len(generation.ranks) and (rest := deadline - time.monotonic()) > 0:
            received = self.hub.receive(rest)
            if received:
                self._note(generation, *received)
        rank, end = generation.first_cause()
        failure = end["failure"]
        phase = failure["phase"] if failure["index"] == index else "start" if failure["index"] < 0 else "data"
        return {
            "status": failure["status"],
            "rank": rank,
            "phase": phase,
            "message": failure["message"],
            "log": end["log"],
        }

    def _stop(self, generation: Generation) -> None:
        """End the generation's workers everywhere, and wait for the agents to say so."""
        for rank in generation.ranks:
            self.hub.send(rank, {"type": "stop", "generation": generation.number})
        waiting = set(generation.ranks)
        deadline = time.monotonic() + STOP_SECONDS
        while waiting and (received := self.hub.receive(deadline - time.monotonic())) is not None:
            rank, message = received
            if message["type"] == "lost" or message.get("generation") == generation.number and message["type"] == "stopped":
                waiting.discard(rank)
        self._token.unlink(missing_ok=True)

    def _start_seconds(self, task: Task) -> float:
        """Allowance for importing the framework: ranks that share a core import one after the other."""
        cores = len({(member.host, core) for member in self.members.values() for core in member.cores})
        return 120.0 + 20.0 * task.world_size / max(1, cores)

    def _next_number(self) -> int:
        """Logs of an earlier sweep in this folder are kept: numbers go on."""
        numbers = [int(path.name[10:14]) for path in self.logs.glob("generation[0-9][0-9][0-9][0-9]-rank*.log")]
        return max(numbers, default=-1) + 1


def assign_slots(members: Sequence[Member]) -> list[Any]:
    """Horovod's view of the members: rank, local rank and cross rank of each, in rank order."""
    from horovod.runner.common.util.hosts import SlotInfo

    hosts = list(dict.fromkeys(member.host for member in members))
    locals_by_host = {host: [member.rank for member in members if member.host == host] for host in hosts}
    slots = []
    for member in members:
        local_rank = locals_by_host[member.host].index(member.rank)
        crossing = [host for host in hosts if len(locals_by_host[host]) > local_rank]
        slots.append(
            SlotInfo(
                hostname=member.host,
                rank=member.rank,
                local_rank=local_rank,
                cross_rank=crossing.index(member.host),
                size=len(members),
                local_size=len(locals_by_host[member.host]),
                cross_size=len(crossing),
            )
        )
    return slots


def threads_per_worker(members: Sequence[Member], *, host: str) -> int:
    """Cores that the host gives its ranks (affinity and cgroup quota) divided by the ranks on it, at least 1."""
    local = [member for member in members if member.host == host]
    cores = len({core for member in local for core in member.cores})
    quota = local[0].cgroup_cpu_quota
    if quota:
        cores = min(cores, int(quota))
    return max(1, cores // len(local))


def worker_settings(slot: Any, *, address: str, port: int, threads: int) -> dict[str, str]:
    """The environment by which a worker's Horovod finds its peers, and its libraries their threads."""
    settings = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_HOSTNAME": slot.hostname,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        "OMP_NUM_THREADS": str(threads),
    }
    if slot.local_size == slot.size and "HOROVOD_GLOO_IFACE" not in os.environ and Path("/sys/class/net/lo").exists():
        settings["HOROVOD_GLOO_IFACE"] = "lo"  # one host: needs no name that resolves
    return settings
