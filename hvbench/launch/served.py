"""A rank's worker and the parameter servers beside it, as their agent sees them: their ends are one end of the rank."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from hvbench.launch.generation import Cause, classify
from hvbench.launch.messages import Exited, Message, Start
from hvbench.launch.process import WorkerProcess

CAUSE_SECONDS = 1.0  # less than what rank 0 gives the others' reports: `hvbench.launch.workers.GRACE_SECONDS`


class ServedWorker:
    """The interface of `WorkerProcess`. A server that ends without its ranks' leave ends the rank."""

    def __init__(self, order: Start, *, scratch: Path) -> None:
        """Start what `order` describes, each process with a folder of its own below `scratch`. Raises OSError."""
        self.generation = order.generation
        self.is_reported = False
        self._echo_seen: float | None = None
        self.names = [f"parameter server {each.rank - each.world_size}" for each in order.workers[1:]]
        self.processes: list[WorkerProcess] = []
        try:
            for number, process in enumerate(order.workers):
                folder = scratch / f"server-{process.rank}" if number else scratch
                self.processes.append(WorkerProcess(replace(order, workers=[process]), scratch=folder))
        except OSError:
            self.kill()
            raise

    @property
    def worker(self) -> WorkerProcess:
        """The rank's own process."""
        return self.processes[0]

    def news(self) -> list[Message]:
        """What the worker reports, and the end of the rank, if anything has ended: the one that explains most, be it a server's."""
        may_follow = any(process.process.poll() is None for process in self.processes)
        own, *others = [process.news() for process in self.processes]
        ends = [message for message in own if isinstance(message, Exited)]
        for number, reports in enumerate(others):
            of_server = (message for message in reports if isinstance(message, Exited) and message.returncode)
            ends += [self._as_own(end, server=number) for end in of_server]
        news = [message for message in own if not isinstance(message, Exited)]
        end = min(ends, key=classify, default=None)
        if end and not (may_follow and self._lacks_cause(end)):
            self.is_reported = True
            news.append(end)
        return news

    def stack(self, rank: int) -> str:
        """What every thread of the worker is doing."""
        return self.worker.stack(rank)

    def end_early(self, index: int) -> None:
        """Let the worker train job `index` no further."""
        self.worker.end_early(index)

    def kill(self) -> None:
        """End all of them, and wait for them."""
        for process in self.processes:
            process.kill()

    def _lacks_cause(self, end: Exited) -> bool:
        """Whether an end only says that another process is gone, and so lately that its parent may not know: the kernel closes connections first."""
        if classify(end) != Cause.ECHO:
            return False
        self._echo_seen = self._echo_seen or time.monotonic()
        return time.monotonic() - self._echo_seen < CAUSE_SECONDS

    def _as_own(self, end: Exited, *, server: int) -> Exited:
        """A server's end as the rank's, where its worker is: a server is no rank of the launch, and knows of no job."""
        failure = replace(end.failure, message=f"{self.names[server]}: {end.failure.message}", **self.worker.place())
        return replace(end, rank=self.worker.rank, failure=failure)
