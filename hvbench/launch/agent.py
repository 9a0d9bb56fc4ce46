"""One rank's agent: starts this rank's worker, watches it, reports, and ends it. It imports no framework.

The worker talks through files in a folder of its own (see `hvbench.worker`); the agent turns them into messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hvbench.launch.bootstrap import look_up
from hvbench.launch.channel import Message, connect, receive, send
from hvbench.launch.context import Context, host_name

POLL_SECONDS = 0.1
PROGRESS_SECONDS = 0.5
LOG_TAIL_BYTES = 4000

# What a launcher tells a rank about itself; a worker must not take it for its own.
LAUNCHER_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "ORTE_", "HVBENCH_RANK", "HVBENCH_SIZE", "HVBENCH_COORDINATOR")


class Agent:
    """Serves rank 0's messages until told to quit or until rank 0 is gone."""

    def __init__(self, connection: Connection, *, rank: int) -> None:
        self.connection = connection
        self.rank = rank
        self.scratch = Path(tempfile.mkdtemp(prefix="hvbench-"))
        self.worker: WorkerProcess | None = None

    def run(self) -> None:
        """Introduce this rank, then serve."""
        with contextlib.suppress(EOFError, OSError):
            send(self.connection, self._hello())
            while self._serve():
                pass
        self._end_worker()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _serve(self) -> bool:
        if self.connection.poll(POLL_SECONDS):
            message = receive(self.connection)
            if message["type"] == "start":
                self.worker = WorkerProcess(message, scratch=self.scratch)
            elif message["type"] == "stop":
                self._end_worker()
                send(self.connection, {"type": "stopped", "generation": message["generation"]})
            elif message["type"] == "quit":
                return False
        if self.worker:
            for report in self.worker.news():
                send(self.connection, {**report, "generation": self.worker.generation})
            if self.worker.is_reported:
                self._end_worker()
        return True

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
            "cgroup_cpu_quota": _quota(),
        }


class WorkerProcess:
    """One worker and the files it leaves."""

    def __init__(self, message: Message, *, scratch: Path) -> None:
        self.generation: int = message["generation"]
        self.folder = scratch / f"generation-{self.generation}"
        self.folder.mkdir()
        (self.folder / "generation.json").write_text(json.dumps(message["description"]))
        self.log = _log_path(message, scratch)
        self.next_result = 0
        self.is_reported = False
        self._progress: dict[str, Any] = {}
        self._progress_sent = 0.0
        self._oom_kills = count_oom_kills()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hvbench.worker", str(self.folder)],
                env=worker_environment(message["environment"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for rank 0; the worker dies with its agent
            )

    def news(self) -> list[Message]:
        """What has happened since the last call: results first, then progress, then the worker's end."""
        returncode = self.process.poll()  # before the files: what it wrote before its end is then seen
        messages = self._results() + self._changed_progress()
        if returncode is not None:
            self.is_reported = True
            messages.append(self._describe_end(returncode))
        return messages

    def kill(self) -> None:
        """End the worker's whole process group, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _results(self) -> list[Message]:
        messages: list[Message] = []
        while (path := self.folder / f"result-{self.next_result}.json").exists():
            messages.append({"type": "result", "index": self.next_result, "result": json.loads(path.read_text())})
            self.next_result += 1
        return messages

    def _changed_progress(self) -> list[Message]:
        now = time.monotonic()
        progress = _read_json(self.folder / "progress.json") if now - self._progress_sent >= PROGRESS_SECONDS else None
        if not progress or progress == self._progress:
            return []
        self._progress, self._progress_sent = progress, now
        return [{"type": "progress", **progress}]

    def _describe_end(self, returncode: int) -> Message:
        failure = _read_json(self.folder / "failure.json") or {}
        if returncode < 0 and not failure:
            name = signal.Signals(-returncode).name
            was_oom = -returncode == signal.SIGKILL and count_oom_kills() > self._oom_kills
            failure = {"status": "oom" if was_oom else "failed", "message": f"killed by {name}"}
        elif not failure:
            failure = {"status": "failed", "message": f"exited with code {returncode} and without a word"}
        progress = _read_json(self.folder / "progress.json") or {"phase": "start", "index": -1}
        return {
            "type": "exited",
            "returncode": returncode,
            "failure": {"phase": progress["phase"], "index": progress["index"], **failure},
            "log": str(self.log),
            "log_tail": _tail(self.log),
        }


def worker_environment(changes: dict[str, str]) -> dict[str, str]:
    """This process's environment without what its launcher said of it, and with `changes`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHER_PREFIXES)}
    return kept | changes


def run_agent(context: Context) -> None:
    """Be the agent of a rank other than 0; returns when rank 0 ends the launch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides; its end closes the channel
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Agent(connect(look_up(context)), rank=context.rank).run()


def count_oom_kills() -> int:
    """Processes that the kernel has killed for memory since boot, as far as it tells."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


def _quota() -> float | None:
    from hvbench.environment import cgroup_cpu_quota

    return cgroup_cpu_quota()


def _log_path(message: Message, scratch: Path) -> Path:
    """In the run's folder where this host sees the very same folder, else in this agent's scratch."""
    logs = Path(message["logs"])
    name = f"generation{message['generation']:04d}-rank{message['description']['rank']}.log"
    is_shared = (logs / message["token"]).exists()
    return (logs if is_shared else scratch) / name


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""
