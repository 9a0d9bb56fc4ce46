"""Rank 0's side: turns a list of jobs into generations of workers, and each job into a result or an outcome.

A *generation* is one set of workers, one a rank, of one framework. It runs jobs one after the other and lives as long
as it is healthy; the first failure ends it on all ranks, and a fresh one goes on with the next job.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvbench.errors import Interrupted, LaunchError, StorageError
from hvbench.launch.channel import Hub, Message
from hvbench.launch.context import Context
from hvbench.launch.diagnosis import Stack, describe_silence, read_stack, suspect
from hvbench.launch.mpirun import join_ranks
from hvbench.launch.placement import Member, assign_slots, threads_per_worker, worker_settings
from hvbench.launch.task import Task, TaskEnd, refuse
from hvbench.launch.timeline import mend_timeline, timeline_settings

JOIN_SECONDS = 120.0
STOP_SECONDS = 60.0  # an agent that does not answer for so long is gone, host and all
STACK_SECONDS = 10.0
GRACE_SECONDS = 2.0  # peers of a dead rank notice within this time; the first cause is then picked among all
MAX_FAILED_STARTS = 3


class StartFailed(LaunchError):
    """Workers did not start, again and again; `failure` is the outcome of the point that they were started for."""

    def __init__(self, message: str, failure: dict[str, Any]) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(kw_only=True)
class Generation:
    """A running set of workers."""

    number: int
    ranks: list[int]
    by_mpirun: bool = False
    results: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)  # index -> rank -> result
    ends: dict[int, Message] = field(default_factory=dict)
    progress: dict[int, tuple[int, str]] = field(default_factory=dict)  # rank -> (index of the job, phase)
    stacks: dict[int, Stack] = field(default_factory=dict)

    def waiting(self, index: int) -> list[int]:
        """Ranks that have not finished job `index`."""
        return [rank for rank in self.ranks if rank not in self.results.get(index, {})]

    def agent(self, rank: int) -> int:
        """Whose agent watches that rank's worker."""
        return 0 if self.by_mpirun else rank

    def phase(self, rank: int) -> str:
        """Where the rank's worker was last seen."""
        return self.progress.get(rank, (-1, "start"))[1]

    def has_started(self) -> bool:
        """Whether every rank has loaded its framework and joined the others."""
        return all(rank in self.results.get(0, {}) or self.progress.get(rank, (-1, ""))[0] >= 0 for rank in self.ranks)

    def first_cause(self) -> tuple[int, Message]:
        """The end that explains the others: a kill or an exception of a rank's own before a peer's echo of it."""

        def weight(item: tuple[int, Message]) -> tuple[int, int]:
            rank, end = item
            failure = end["failure"]
            if failure["status"] == "oom":
                return (0, rank)
            if end["returncode"] == -signal.SIGKILL:  # nobody kills itself because a peer is gone
                return (1, rank)
            if failure.get("is_echo"):
                return (4, rank)
            return (2 if end["returncode"] != 0 else 3, rank)

        return min(self.ends.items(), key=weight)


class Coordinator:
    """Runs tasks on the members of a launch. `on_progress(index, message)` hears rank 0's worker."""

    def __init__(self, hub: Hub, context: Context, *, run_path: Path) -> None:
        self.hub = hub
        self.context = context
        self.logs = run_path / "logs"
        self.timelines: Path | None = None  # where Horovod's timeline of each generation goes, if it is wanted
        self.numbers = itertools.count(self._next_number())
        self.members: dict[int, Member] = {}
        self.lost: set[int] = set()
        self.on_progress: Callable[[Message], None] = lambda message: None

    def wait_for_members(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Wait until every rank's agent has said hello; raises LaunchError naming the ranks that did not.

        `check` is called about once a second, to raise when somebody is known not to come.
        """
        deadline = time.monotonic() + JOIN_SECONDS
        while len(self.members) < self.context.size:
            received = self.hub.receive(min(1.0, deadline - time.monotonic()))
            if received is None:
                check()
                if time.monotonic() < deadline:
                    continue
                missing = sorted(set(range(self.context.size)) - set(self.members))
                raise LaunchError(f"rank {', '.join(map(str, missing))} did not join within {JOIN_SECONDS:.0f} s")
            rank, message = received
            if message["type"] == "hello":
                fields = {key: message[key] for key in Member.__dataclass_fields__}
                self.members[rank] = Member(**fields)
            elif message["type"] in ("lost", "broken"):
                raise LaunchError(f"rank {rank}: its agent ended as soon as it had joined{describe_defect(message)}")

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskEnd]]:
        """Yield (index of the task, its end) for every task, in order; raises LaunchError when workers cannot start."""
        position, failed_starts = 0, 0
        while position < len(tasks):
            last = position
            while last < len(tasks) and tasks[last].group == tasks[position].group:
                last += 1
            start_failure = None
            if tasks[position].by_mpirun and len({member.host for member in self.members.values()}) > 1:
                yield position, refuse("workers that mpirun starts run on one host; this launch has several")
                position += 1
                continue
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
                    raise StartFailed(
                        f"{tasks[position].framework} workers failed to start {MAX_FAILED_STARTS} times in a row: "
                        f"rank {start_failure['rank']}: {start_failure['message']} (log: {start_failure['log']})",
                        start_failure,
                    )

    def quit(self) -> None:
        """Let every agent end, workers included."""
        for rank in self.members:
            self.hub.send(rank, {"type": "quit"})

    def _run_generation(self, tasks: Sequence[Task]) -> Iterator[TaskEnd]:
        generation, server = self._start(tasks)
        patience_seconds = STOP_SECONDS
        try:
            for index, task in enumerate(tasks):
                begun = time.monotonic()
                failure = self._wait(generation, index, task=task)
                results = generation.results.get(index, {})
                yield TaskEnd(
                    results=[results[rank] for rank in generation.ranks] if not failure else [],
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
            try:
                self._stop(generation, patience_seconds=patience_seconds)
            finally:
                stop_server(server)
                mend_timeline(self._timeline(generation))

    def _start(self, tasks: Sequence[Task]) -> tuple[Generation, Any]:
        from horovod.runner.http.http_server import RendezvousServer

        if self.lost:
            names = ", ".join(f"{rank} on {self.members[rank].host}" for rank in sorted(self.lost))
            raise LaunchError(
                f"rank {names}: its agent is gone or does not answer; what was measured is safe, go on with --resume"
            )
        first = tasks[0]
        ranks = list(range(first.world_size))
        generation = Generation(number=next(self.numbers), ranks=ranks, by_mpirun=first.by_mpirun)
        slots = assign_slots([self.members[rank] for rank in ranks])
        server = RendezvousServer()
        port = server.start()
        server.init(slots)
        token = f".{secrets.token_hex(8)}.token"
        try:
            (self.logs / token).touch()
            timeline = timeline_settings(self._timeline(generation))
        except OSError as error:
            stop_server(server)
            raise StorageError(
                f"{self.logs}: cannot be written: {error.strerror}; what was measured before is safe"
            ) from None
        address = self.hub.address.hosts[0]
        messages = []
        for rank, slot in zip(ranks, slots, strict=True):
            # A share of the launch, not of the point: a rank's cores do not grow when other ranks sit a point out.
            threads = threads_per_worker(list(self.members.values()), host=slot.hostname)
            places = worker_settings(slot, address=address, port=port, threads=threads, by_mpirun=first.by_mpirun)
            messages.append(
                {
                    "type": "start",
                    "generation": generation.number,
                    "logs": str(self.logs.resolve()),
                    "token": token,
                    "environment": timeline | places | first.settings,
                    "link_bits_per_second": first.link_bits_per_second,
                    "description": {
                        "framework": first.framework,
                        "rank": rank,
                        "world_size": first.world_size,
                        "local_rank": slot.local_rank,
                        "host": slot.hostname,
                        "threads": threads,
                        "device": first.device,
                        "strategy": first.strategy,
                        "memory_limit_bytes": first.memory_limit_bytes,
                        "jobs": [task.job for task in tasks],
                    },
                }
            )
        if first.by_mpirun:
            messages = [join_ranks(messages, servers=first.servers)]
        for rank, message in enumerate(messages):
            self.hub.send(rank, message)
        self._token = self.logs / token
        return generation, server

    def _wait(self, generation: Generation, index: int, *, task: Task) -> dict[str, Any] | None:
        """Wait until every rank has finished job `index`; a failure otherwise. Loading the framework has its own limit."""
        limit, deadline = task.timeout_seconds, None
        start_deadline = time.monotonic() + self._start_seconds(task)
        while generation.waiting(index):
            if deadline is None and generation.has_started():
                deadline = time.monotonic() + limit
            ends_at = start_deadline if deadline is None else deadline
            received = self.hub.receive(min(1.0, ends_at - time.monotonic()))
            if received is not None:
                self._note(generation, *received)
                if self._has_ended_early(generation, index):
                    return self._describe_failure(generation, index)
            if generation.waiting(index) and time.monotonic() >= ends_at:
                return self._describe_timeout(
                    generation, index, seconds=self._start_seconds(task) if deadline is None else limit
                )
        return None

    def _note(self, generation: Generation, sender: int, message: Message) -> None:
        rank = message.get("of_rank", sender)
        if message["type"] in ("lost", "broken"):
            self.lost.add(rank)
            host = self.members[rank].host
            raise LaunchError(
                f"rank {rank} on {host}: its agent is gone{describe_defect(message)}; what was measured is safe, go on with --resume"
            )
        if message.get("generation") != generation.number:
            return
        if message["type"] == "result":
            generation.results.setdefault(message["index"], {})[rank] = message["result"]
        elif message["type"] == "exited":
            generation.ends[rank] = message
        elif message["type"] == "stack":
            generation.stacks[rank] = read_stack(message["stack"])
        elif message["type"] == "progress":
            generation.progress[rank] = (message["index"], message["phase"])
            if rank == 0:
                self.on_progress(message)

    def _has_ended_early(self, generation: Generation, index: int) -> bool:
        return any(rank not in generation.results.get(index, {}) for rank in generation.ends)

    def _describe_failure(self, generation: Generation, index: int) -> dict[str, Any]:
        """What ended job `index`, once every rank has had the time to say what it saw."""
        deadline = time.monotonic() + GRACE_SECONDS
        while len(generation.ends) < len(generation.ranks) and (rest := deadline - time.monotonic()) > 0:
            received = self.hub.receive(rest)
            if received:
                self._note(generation, *received)
        rank, end = generation.first_cause()
        failure = end["failure"]
        silent = [rank for rank in generation.waiting(index) if rank not in generation.ends]
        if failure.get("is_echo") and silent:  # everybody heard of a death, and nobody died: the one who said nothing
            return {
                "status": "failed",
                "rank": silent[0],
                "phase": generation.phase(silent[0]),
                "message": f"does not answer its peers; rank {rank} saw: {failure['message']}",
                "log": self._log(generation, silent[0]),
            }
        phase = failure["phase"] if failure["index"] == index else "start" if failure["index"] < 0 else "data"
        return {
            "status": failure["status"],
            "rank": rank,
            "phase": phase,
            "message": failure["message"],
            "log": self._keep_log(generation, rank, end),
        }

    def _describe_timeout(self, generation: Generation, index: int, *, seconds: float) -> dict[str, Any]:
        """The time of job `index` is up: ask every rank what it is doing, and blame the one that waits for nobody."""
        waiting = generation.waiting(index)
        for rank in waiting:
            self.hub.send(generation.agent(rank), {"type": "where", "generation": generation.number, "rank": rank})
        deadline = time.monotonic() + STACK_SECONDS
        while set(waiting) - set(generation.stacks) and (rest := deadline - time.monotonic()) > 0:
            received = self.hub.receive(rest)
            if received:
                self._note(generation, *received)
        rank = suspect(waiting, generation.stacks)
        return {
            "status": "timeout",
            "rank": rank,
            "phase": generation.phase(rank),
            "message": f"not finished after {seconds:g} s; {describe_silence(rank, generation.stacks)}",
            "log": self._log(generation, rank),
        }

    def _stop(self, generation: Generation, *, patience_seconds: float) -> None:
        """End the generation's workers everywhere; a rank whose agent does not say so is lost."""
        for rank in generation.ranks:
            self.hub.send(rank, {"type": "stop", "generation": generation.number})
        waiting = set(generation.ranks) - self.lost
        deadline = time.monotonic() + patience_seconds
        try:
            while waiting and (received := self.hub.receive(deadline - time.monotonic())) is not None:
                rank, message = received
                if message["type"] in ("lost", "broken"):
                    self.lost.add(rank)
                    waiting.discard(rank)
                elif message.get("generation") == generation.number and message["type"] == "stopped":
                    waiting.discard(rank)
            self.lost |= waiting
        finally:
            with contextlib.suppress(OSError):
                self._token.unlink(missing_ok=True)

    def _timeline(self, generation: Generation) -> Path | None:
        return self.timelines and self.timelines / f"generation{generation.number:04d}.json"

    def _log(self, generation: Generation, rank: int) -> str:
        return str(self.logs / f"generation{generation.number:04d}-rank{rank}.log")

    def _keep_log(self, generation: Generation, rank: int, end: Message) -> str:
        """Where the worker's log can be read; of one that lies on another host, its end is kept here."""
        path = Path(self._log(generation, rank))
        with contextlib.suppress(OSError):
            if not path.exists() and end.get("log_tail"):
                path.write_text(end["log_tail"])
        return str(path)

    def _start_seconds(self, task: Task) -> float:
        """Allowance for importing the framework: ranks that share a core import one after the other."""
        cores = len({(member.host, core) for member in self.members.values() for core in member.cores})
        return 120.0 + 20.0 * task.world_size / max(1, cores)

    def _next_number(self) -> int:
        """Logs of an earlier sweep in this folder are kept: numbers go on."""
        found = (re.match(r"generation(\d{4,9})-rank", path.name) for path in self.logs.glob("generation*-rank*.log"))
        return max((int(match[1]) for match in found if match), default=-1) + 1


def stop_server(server: Any) -> None:
    """End a rendezvous server of Horovod's, its listening socket included, which its own `stop` leaves open."""
    server.stop()
    server._httpd.server_close()


def describe_defect(message: Message) -> str:
    """What an agent said of its own end, if anything."""
    return f" ({message['message']})" if message.get("message") else ""
