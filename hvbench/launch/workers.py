"""One set of workers from its start to its end, as rank 0 sees it: started, waited for, questioned, stopped."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hvbench.errors import LaunchError, StorageError
from hvbench.launch import script
from hvbench.launch.channel import Hub
from hvbench.launch.diagnosis import describe_silence, suspect
from hvbench.launch.generation import Generation
from hvbench.launch.messages import Broken, EndEarly, Exited, Lost, Message, Progress, Stop, Stopped, Where
from hvbench.launch.placement import Member, assign_slots
from hvbench.launch.starting import Rendezvous, make_orders
from hvbench.launch.task import GO_ON, Failure, FailureStatus, Task, TaskEnd
from hvbench.launch.timeline import mend_timeline, timeline_settings

STACK_SECONDS = 10.0
STOP_SECONDS = 60.0  # an agent that does not answer for so long is gone, host and all
# For the other ranks of a script to stop early where one has: after that they wait for it in an all-reduce.
AGREE_SECONDS = 10.0
GRACE_SECONDS = 2.0  # the other ranks of a dead one notice within this time; the first cause is then picked among all


@dataclass(kw_only=True)
class LaunchState:
    """What all sets of workers of one launch share."""

    hub: Hub
    logs: Path
    timelines: Path | None = None  # where Horovod's timeline of each set of workers goes, if it is wanted
    members: dict[int, Member] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)  # ranks whose agents are gone or do not answer
    living: dict[int, WorkerSet] = field(default_factory=dict)  # by the number of their generation

    def require_members(self) -> None:
        """Raise LaunchError when an agent is gone."""
        if self.lost:
            names = ", ".join(f"{rank} on {self.members[rank].host}" for rank in sorted(self.lost))
            raise LaunchError(f"rank {names}: its agent is gone or does not answer; {GO_ON}")

    def start_limit_seconds(self) -> float:
        """Time to import the framework and join: ranks that share a core import one after the other."""
        cores = len({(member.host, core) for member in self.members.values() for core in member.cores})
        ranks = sum(len(workers.generation.ranks) for workers in self.living.values())
        return 120.0 + 20.0 * ranks / max(1, cores)

    def receive(self, timeout_seconds: float) -> tuple[int, Message] | None:
        """The next message and whose agent's it is, noted where it is a report on living workers; None: none in time."""
        received = self.hub.receive(timeout_seconds)
        if received and (workers := self.living.get(getattr(received[1], "generation", -1))):
            workers.note(received[1])
        return received

    def listen(self, timeout_seconds: float) -> None:
        """Receive one message, or none in time; raises LaunchError when an agent is gone."""
        received = self.receive(timeout_seconds)
        if received and isinstance(received[1], Lost | Broken):
            rank, message = received
            self.lost.add(rank)
            host = self.members[rank].host
            raise LaunchError(f"rank {rank} on {host}: its agent is gone{describe_defect(message)}; {GO_ON}")


class WorkerSet:
    """The workers of one generation, and the job of theirs that is waited for."""

    def __init__(
        self,
        state: LaunchState,
        tasks: Sequence[Task],
        *,
        number: int,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Order every rank's agent to start its worker, with more `variables` in its environment.

        Raises LaunchError or StorageError.
        """
        from horovod.runner.http.http_server import RendezvousServer

        state.require_members()
        first = tasks[0]
        self.state = state
        self.tasks = tasks
        self.generation = Generation(number=number, ranks=list(range(first.world_size)), by_mpirun=first.by_mpirun)
        self.on_progress: Callable[[Progress], None] = lambda message: None
        self.waited_seconds: Callable[[], float] = lambda: 0.0  # for other workers' turns, in all
        self.describe_wait: Callable[[], str | None] = lambda: None  # for whose turn they wait now
        self._token = state.logs / f".{secrets.token_hex(8)}.token"
        slots = assign_slots([state.members[rank] for rank in self.generation.ranks])
        self._server = RendezvousServer()
        port = self._server.start()
        self._server.init(slots)
        try:
            self._token.touch()
            environment = timeline_settings(self._timeline)
        except OSError as error:
            stop_server(self._server)
            raise StorageError(
                f"{state.logs}: cannot be written: {error.strerror}; what was measured before is safe"
            ) from None
        rendezvous = Rendezvous(
            generation=number,
            address=state.hub.address.hosts[0],
            port=port,
            logs=str(state.logs.resolve()),
            token=self._token.name,
            environment={**environment, **variables},
        )
        orders = make_orders(tasks, slots, members=list(state.members.values()), rendezvous=rendezvous)
        state.living[number] = self
        for rank, order in enumerate(orders):
            state.hub.send(rank, order)

    def take_up(self, index: int) -> None:
        """Job `index` is waited for: its time begins now, or when all ranks have loaded the framework."""
        self.index = index
        self._begun, self._waited_before = time.monotonic(), self.waited_seconds()
        self._counts_from: float | None = None  # when its time limit began; the start has a limit of its own
        self._waited_at_start = 0.0
        self._split_since: float | None = None  # since when some ranks have stopped early and others train on

    def note(self, message: Message) -> None:
        """Take in a report on these workers."""
        self.generation.note(message)
        if isinstance(message, Progress):
            self.on_progress(message)

    @property
    def ends_at(self) -> float:
        """By the monotonic clock, when the job's time, or that of the start, is up. What it waits for others is not counted."""
        return self._begun + self.state.start_limit_seconds() if self._counts_from is None else self._deadline

    @property
    def _deadline(self) -> float:
        waited = self.waited_seconds() - self._waited_at_start
        return self._counts_from + self.tasks[self.index].timeout_seconds + waited

    def look(self) -> TaskEnd | None:
        """How the job has ended, from the reports so far and the clock; None while it runs.

        A failure takes seconds to explain. Raises LaunchError when an agent is gone.
        """
        generation, index = self.generation, self.index
        if not generation.unfinished(index):
            return self._end()
        if generation.has_ended_before(index):
            return self._end(self._explain_end(index))
        if split := self._explain_split(index):
            return self._end(split)
        if self._counts_from is None and generation.has_started():
            self._counts_from, self._waited_at_start = time.monotonic(), self.waited_seconds()
        if time.monotonic() < self.ends_at:
            return None
        is_starting = self._counts_from is None
        limit = self.state.start_limit_seconds() if is_starting else self.tasks[index].timeout_seconds
        return self._end(self._explain_timeout(index, seconds=limit))

    def end_early(self) -> None:
        """Let the ranks train the job that is waited for no further; they leave its results, and go on with the next one."""
        order = EndEarly(generation=self.generation.number, index=self.index)
        self.state.hub.send(self.generation.agent(0), order)

    def stop(self, *, patience_seconds: float = STOP_SECONDS) -> None:
        """End the workers everywhere; a rank whose agent does not confirm it within `patience_seconds` is lost."""
        try:
            self._stop_workers(patience_seconds)
        finally:
            self.state.living.pop(self.generation.number, None)
            with contextlib.suppress(OSError):
                self._token.unlink(missing_ok=True)
            stop_server(self._server)
            mend_timeline(self._timeline)

    def _end(self, failure: Failure | None = None) -> TaskEnd:
        results = self.generation.results.get(self.index, {})
        waited = self.waited_seconds() - self._waited_before
        return TaskEnd(
            results=[] if failure else [results[rank] for rank in self.generation.ranks],
            failure=failure,
            generation=self.generation.number,
            seconds=max(0.0, time.monotonic() - self._begun - waited),
            waited_seconds=waited,
        )

    def _stop_workers(self, patience_seconds: float) -> None:
        state, number = self.state, self.generation.number
        for rank in self.generation.ranks:
            state.hub.send(rank, Stop(generation=number))
        waiting = set(self.generation.ranks) - state.lost
        deadline = time.monotonic() + patience_seconds
        while waiting and (received := state.receive(deadline - time.monotonic())) is not None:
            rank, message = received
            if isinstance(message, Lost | Broken):
                state.lost.add(rank)
                waiting.discard(rank)
            elif message == Stopped(generation=number):
                waiting.discard(rank)
        state.lost |= waiting

    def _explain_end(self, index: int) -> Failure:
        """What ended job `index`, once every rank has had the time to report what it saw."""
        generation = self.generation
        deadline = time.monotonic() + GRACE_SECONDS
        while len(generation.ends) < len(generation.ranks) and (rest := deadline - time.monotonic()) > 0:
            self.state.listen(rest)
        end = generation.first_cause()
        failure = end.failure
        silent = [rank for rank in generation.unfinished(index) if rank not in generation.ends]
        if failure.is_echo and silent:  # all saw that a rank is gone, and none has ended first: the silent one stalled
            return Failure(
                status=FailureStatus.FAILED,
                rank=silent[0],
                phase=generation.phase(silent[0]),
                message=f"does not answer the other ranks; rank {end.rank} saw: {failure.message}",
                log=str(self._log(silent[0])),
                **generation.training(silent[0], index),
            )
        phase = failure.phase if failure.index == index else "start" if failure.index < 0 else "data"
        training = {"step": failure.step, "last_loss": failure.loss} if failure.index == index else {}
        return Failure(
            status=failure.status,
            rank=end.rank,
            phase=phase,
            message=failure.message,
            log=self._keep_log(end),
            **training,
        )

    def _explain_split(self, index: int) -> Failure | None:
        """What ends job `index`, a script's, where one rank has stopped early and another trains on, for so long that it is no skew."""
        split = self.generation.split_by_stop(index) if self.tasks[index].command else None
        if split is None:
            self._split_since = None
            return None
        self._split_since = self._split_since or time.monotonic()
        if time.monotonic() - self._split_since < AGREE_SECONDS:
            return None
        stopped, rank = split
        return Failure(
            status=FailureStatus.FAILED,
            rank=rank,
            phase=self.generation.phase(rank),
            message=f"trains on where rank {stopped} has stopped early: every rank has to give training.evaluate() the same loss, the "
            "mean over all ranks",
            log=str(self._log(rank)),
            **self.generation.training(rank, index),
        )

    def _explain_timeout(self, index: int, *, seconds: float) -> Failure:
        """Ask every unfinished rank what it is doing, and name the one that waits for no other.

        Ranks that wait for their turn are suspended and cannot answer: whose turn it is says the same of all of them.
        """
        generation = self.generation
        waiting = generation.unfinished(index)
        if wait := self.describe_wait():
            return self._describe_timeout(
                index,
                waiting[0],
                f"not finished after {seconds:g} s without its waits for other workers; at their end {wait}",
            )
        for rank in waiting:
            self.state.hub.send(generation.agent(rank), Where(generation=generation.number, rank=rank))
        deadline = time.monotonic() + STACK_SECONDS
        while set(waiting) - set(generation.stacks) and (rest := deadline - time.monotonic()) > 0:
            self.state.listen(rest)
        rank = suspect(waiting, generation.stacks)
        has_begun = generation.phase(rank) != script.PHASE
        silence = describe_silence(rank, generation.stacks) if has_begun else f"rank {rank} {script.NOT_BEGUN}"
        return self._describe_timeout(index, rank, f"not finished after {seconds:g} s; {silence}")

    def _describe_timeout(self, index: int, rank: int, message: str) -> Failure:
        return Failure(
            status=FailureStatus.TIMEOUT,
            rank=rank,
            phase=self.generation.phase(rank),
            message=message,
            log=str(self._log(rank)),
            **self.generation.training(rank, index),
        )

    @property
    def _timeline(self) -> Path | None:
        folder = self.state.timelines
        return folder / f"generation{self.generation.number:04d}.json" if folder else None

    def _log(self, rank: int) -> Path:
        return self.state.logs / f"generation{self.generation.number:04d}-rank{rank}.log"

    def _keep_log(self, end: Exited) -> str:
        """Where the worker's log can be read; of one that lies on another host, its end is kept here."""
        path = self.state.logs / Path(end.log).name if end.log else self._log(end.rank)
        with contextlib.suppress(OSError):
            if not path.exists() and end.log_tail:
                path.write_text(end.log_tail, encoding="utf-8", errors="replace")
        return str(path)


def stop_server(server: Any) -> None:
    """End a rendezvous server of Horovod's, its listening socket included, which its own `stop` leaves open."""
    server.stop()
    server._httpd.server_close()


def describe_defect(message: Lost | Broken) -> str:
    """What an agent said of its own end, if anything."""
    return f" ({message.message})" if isinstance(message, Broken) and message.message else ""
