"""One rank's agent: starts this rank's worker, watches it, reports, and ends it. It imports no framework.

The worker talks through files in a folder of its own (see `hvbench.worker.jobs`); the agent turns them into messages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from hvbench.launch.bootstrap import look_up
from hvbench.launch.channel import Message, PeerGone, connect, receive, send
from hvbench.launch.context import Context, host_name
from hvbench.launch.hosts import gloo_interface
from hvbench.launch.link import shape_link
from hvbench.launch.mpirun import MpirunWorkers
from hvbench.launch.process import WorkerProcess
from hvbench.records.environment import cgroup_cpu_quota

POLL_SECONDS = 0.1


class Agent:
    """Serves rank 0's messages until told to quit or until rank 0 is gone."""

    def __init__(self, connection: Connection, *, rank: int) -> None:
        self.connection = connection
        self.rank = rank
        self.scratch = Path(tempfile.mkdtemp(prefix="hvbench-"))
        self.worker: WorkerProcess | MpirunWorkers | None = None

    def run(self) -> None:
        """Introduce this rank, then serve; whatever goes wrong here, rank 0 learns of it and the worker ends."""
        try:
            send(self.connection, self._hello())
            while self._serve():
                pass
        except PeerGone:
            pass
        except Exception as error:  # a defect or a broken host: without this word rank 0 would wait for ever
            with contextlib.suppress(PeerGone):
                send(self.connection, {"type": "broken", "message": f"{type(error).__name__}: {error}"})
            raise
        finally:
            self._end_worker()
            with contextlib.suppress(OSError):  # what could not be shaped needs no mending
                shape_link(None)
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.connection.close()

    def _serve(self) -> bool:
        if self._has_message():
            message = receive(self.connection)
            if message["type"] == "start":
                self._start_worker(message)
            elif message["type"] == "stop":
                self._end_worker()
                send(self.connection, {"type": "stopped", "generation": message["generation"]})
            elif message["type"] == "where":
                stack = self.worker.stack(message["rank"]) if self.worker else ""
                answer = {"type": "stack", "of_rank": message["rank"], "stack": stack}
                send(self.connection, {**answer, "generation": message["generation"]})
            elif message["type"] == "quit":
                return False
        if self.worker:
            for report in self.worker.news():
                send(self.connection, {**report, "generation": self.worker.generation})
            if self.worker.is_reported:
                self._end_worker()
        return True

    def _has_message(self) -> bool:
        try:
            return self.connection.poll(POLL_SECONDS)
        except (OSError, EOFError) as error:
            raise PeerGone(str(error)) from None

    def _start_worker(self, message: Message) -> None:
        try:
            shape_link(message.get("link_bits_per_second"))
            kind = MpirunWorkers if "ranks" in message else WorkerProcess
            message["environment"] |= gloo_interface(message["environment"])
            self.worker = kind(message, scratch=self.scratch)
        except OSError as error:  # no space, no memory, no more processes
            failure = {"status": "failed", "phase": "start", "index": -1, "message": f"cannot start a worker: {error}"}
            end = {"type": "exited", "returncode": 1, "failure": failure, "log": None, "log_tail": ""}
            send(self.connection, {**end, "generation": message["generation"]})

    def _end_worker(self) -> None:
        if self.worker:
            self.worker.kill()
            self.worker = None

    def _hello(self) -> Message:
        return {
            "type": "hello",
            "rank": self.rank,
            "host": host_name(),
            "pid": os.getpid(),
            "cores": sorted(os.sched_getaffinity(0)),
            "cgroup_cpu_quota": cgroup_cpu_quota(),
        }


def run_agent(context: Context) -> None:
    """Be the agent of a rank other than 0; returns when rank 0 ends the launch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides; its end closes the channel
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Agent(connect(look_up(context)), rank=context.rank).run()
