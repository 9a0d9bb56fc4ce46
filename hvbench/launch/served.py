"""A rank's worker and the parameter servers beside it, as their agent sees them: their ends are one end of the rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hvbench.launch.generation import classify
from hvbench.launch.messages import Exited, Message, Start
from hvbench.launch.process import WorkerProcess


class ServedWorker:
    """The interface of `WorkerProcess`. A server that ends without its ranks' leave ends the rank."""

    def __init__(self, order: Start, *, scratch: Path) -> None:
        """Start what `order` describes, each process with a folder of its own below `scratch`. Raises OSError."""
        self.generation = order.generation
        self.is_reported = False
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
        # The worker first: if it ended because of a server, that has ended, too, when it is looked at.
        own, *others = [process.news() for process in self.processes]
        ends = [message for message in own if isinstance(message, Exited)]
        for number, reports in enumerate(others):
            of_server = (message for message in reports if isinstance(message, Exited) and message.returncode)
            ends += [self._as_own(end, server=number) for end in of_server]
        news = [message for message in own if not isinstance(message, Exited)]
        if ends:
            self.is_reported = True
            news.append(min(ends, key=classify))
        return news

    def stack(self, rank: int) -> str:
        """What every thread of the worker is doing."""
        return self.worker.stack(rank)

    def kill(self) -> None:
        """End all of them, and wait for them."""
        for process in self.processes:
            process.kill()

    def _as_own(self, end: Exited, *, server: int) -> Exited:
        """A server's end as the rank's, where its worker is: a server is no rank of the launch, and knows of no job."""
        failure = replace(end.failure, message=f"{self.names[server]}: {end.failure.message}", **self.worker.place())
        return replace(end, rank=self.worker.rank, failure=failure)
