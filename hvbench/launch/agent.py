"""One rank's agent: starts this rank's workers, watches them, reports on them, and ends them. It imports no framework.

Sets of workers that take turns live at the same time, so a rank may have several workers, one a generation. A worker writes files into a folder of its own (`hvbench.worker` says which); the agent turns them into messages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Collection
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from hvbench.launch.bootstrap import look_up
from hvbench.launch.channel import ConnectionClosed, connect, receive, send
from hvbench.launch.context import Context, host_name, machine_id
from hvbench.launch.hosts import gloo_interface
from hvbench.launch.link import shape_link
from hvbench.launch.messages import (
    Broken,
    EndEarly,
    Exited,
    Hello,
    Message,
    Quit,
    StackDump,
    Start,
    Stop,
    Stopped,
    Where,
    WorkerFailure,
)
from hvbench.launch.mpirun import MpirunWorkers
from hvbench.launch.process import WorkerProcess
from hvbench.launch.script_process import ScriptProcess
from hvbench.launch.served import ServedWorker
from hvbench.launch.settings import find_missing_interface
from hvbench.launch.task import FailureStatus
from hvbench.records.environment import CHOSEN_VARIABLE, cgroup_cpu_quota

POLL_SECONDS = 0.1


class Agent:
    """Follows rank 0's orders until it is told to quit or rank 0 is gone."""

    def __init__(self, connection: Connection, *, rank: int) -> None:
        self.connection = connection
        self.rank = rank
        self.scratch = Path(tempfile.mkdtemp(prefix="hvbench-"))
        self.workers: dict[int, WorkerProcess | ServedWorker | MpirunWorkers] = {}  # by generation

    def run(self) -> None:
        """Introduce this rank, then serve; whatever fails here is reported to rank 0, and the workers end."""
        try:
            send(self.connection, self._hello())
            if mistake := find_missing_interface():
                send(self.connection, Broken(message=f"on {host_name()}, {mistake}"))
                return
            while self._serve():
                pass
        except ConnectionClosed:
            pass
        except Exception as error:  # a defect or a broken host: without this report rank 0 would wait for ever
            with contextlib.suppress(ConnectionClosed):
                send(self.connection, Broken(message=f"{type(error).__name__}: {error}"))
            raise
        finally:
            for generation in list(self.workers):
                self._end_worker(generation)
            with contextlib.suppress(OSError):  # a link that could not be shaped needs no restoring
                shape_link(None)
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.connection.close()

    def _serve(self) -> bool:
        """Follow one order if there is one, pass the workers' news on; False after the order to quit."""
        if self._has_message():
            order = receive(self.connection)
            if isinstance(order, Quit):
                return False
            self._follow(order)
        for generation, worker in list(self.workers.items()):
            for report in worker.news():
                send(self.connection, report)
            if worker.is_reported:
                self._end_worker(generation)
        return True

    def _follow(self, order: Message) -> None:
        match order:
            case Start():
                self._start_worker(order)
            case Stop():
                self._end_worker(order.generation)
                send(self.connection, Stopped(generation=order.generation))
            case EndEarly():
                if worker := self.workers.get(order.generation):
                    worker.end_early(order.index)
            case Where():
                worker = self.workers.get(order.generation)
                text = worker.stack(order.rank) if worker else ""
                send(self.connection, StackDump(generation=order.generation, rank=order.rank, text=text))

    def _has_message(self) -> bool:
        try:
            return self.connection.poll(POLL_SECONDS)
        except (OSError, EOFError) as error:
            raise ConnectionClosed(str(error)) from None

    def _start_worker(self, order: Start) -> None:
        try:
            shape_link(order.link_bits_per_second)
            own = ScriptProcess if order.workers[0].command else WorkerProcess
            with_servers = ServedWorker if len(order.workers) > 1 else own
            kind = MpirunWorkers if order.by_mpirun else with_servers
            complete_order = replace(order, environment=complete(order.environment, own=order.workers[0].environment))
            self.workers[order.generation] = kind(complete_order, scratch=self.scratch)
        except OSError as error:  # no space, no memory, no more processes
            failure = WorkerFailure(status=FailureStatus.FAILED, message=f"cannot start a worker: {error}")
            send(
                self.connection,
                Exited(generation=order.generation, rank=self.rank, returncode=1, failure=failure),
            )

    def _end_worker(self, generation: int) -> None:
        if worker := self.workers.pop(generation, None):
            worker.kill()

    def _hello(self) -> Hello:
        return Hello(
            rank=self.rank,
            host=host_name(),
            pid=os.getpid(),
            cores=sorted(os.sched_getaffinity(0)),
            cgroup_cpu_quota=cgroup_cpu_quota(),
            machine=machine_id(),
        )


def complete(environment: dict[str, str], *, own: Collection[str] = ()) -> dict[str, str]:
    """What hvbench sets for a worker, with this host's interface, and with the names of all that: nobody else chose it.

    `own`: names of what a script's suite sets for it beside that.
    """
    chosen = environment | gloo_interface(environment)
    return chosen | {CHOSEN_VARIABLE: ",".join(sorted({*chosen, *own}))}


def run_agent(context: Context) -> None:
    """Serve as the agent of a rank other than 0; returns when rank 0 ends the launch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides; its end closes the channel
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Agent(connect(look_up(context)), rank=context.rank).run()
