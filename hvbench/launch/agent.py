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

from hvbench.environment import cgroup_cpu_quota
from hvbench.launch.bootstrap import look_up
from hvbench.launch.channel import Message, PeerGone, connect, receive, send
from hvbench.launch.context import Context, host_name
from hvbench.launch.evidence import OUT_OF_MEMORY

POLL_SECONDS = 0.1
PROGRESS_SECONDS = 0.5
PROGRESS_NUMBERS = ("step", "steps", "loss", "timed_steps", "timed_seconds")
LOG_TAIL_BYTES = 4000
STACK_SECONDS = 5.0  # a healthy process answers SIGUSR1 in milliseconds, a busy machine's later
STATUSES = ("oom", "failed", "timeout", "diverged")

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
                stack = self.worker.stack() if self.worker else ""
                send(self.connection, {"type": "stack", "generation": message["generation"], "stack": stack})
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
            self.worker = WorkerProcess(message, scratch=self.scratch)
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


class WorkerProcess:
    """One worker and the files it leaves."""

    def __init__(self, message: Message, *, scratch: Path) -> None:
        self.generation: int = message["generation"]
        self.folder = scratch / f"generation-{self.generation}"
        self.folder.mkdir()
        description = {**message["description"], "agent_pid": os.getpid()}
        (self.folder / "generation.json").write_text(json.dumps(description))
        self.log = _log_path(message, scratch)
        self.next_result = 0
        self.is_reported = False
        self._has_memory_limit = bool(message["description"].get("memory_limit_bytes"))
        self._progress: dict[str, Any] = {}
        self._progress_sent = 0.0
        self._oom_kills = count_oom_kills()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # -P: a file random.py in the folder where somebody calls hvbench must not become a module
                [sys.executable, "-P", "-m", "hvbench.worker", str(self.folder)],
                env=worker_environment(message["environment"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for rank 0; the worker dies with its agent
            )

    def news(self) -> list[Message]:
        """What has happened since the last call: results first, then progress, then the worker's end."""
        returncode = self.process.poll()  # before the files: what it wrote before its end is then seen
        try:
            messages = self._results()
        except ValueError as error:
            self.is_reported = True
            return [self._describe_end(returncode or 1, garbage=str(error))]
        messages += self._changed_progress()
        if returncode is not None:
            self.is_reported = True
            messages.append(self._describe_end(returncode))
        return messages

    def stack(self) -> str:
        """What every thread of the worker is doing; empty if it cannot say, not even by a signal handler in C."""
        path = self.folder / "stack.txt"
        if self.process.poll() is not None or not path.exists():
            return ""
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + STACK_SECONDS
        text, before = "", None
        while time.monotonic() < deadline and not (text and text == before):
            time.sleep(0.05)
            text, before = path.read_text(errors="replace"), text
        with contextlib.suppress(OSError), self.log.open("a") as log:
            log.write(f"\nStacks when the time was up:\n{text}\n" if text else "\nTime was up; no answer to SIGUSR1.\n")
        return text

    def kill(self) -> None:
        """End the worker's whole process group, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _results(self) -> list[Message]:
        messages: list[Message] = []
        while (path := self.folder / f"result-{self.next_result}.json").exists():
            result = _read_json(path)
            if result is None:
                raise ValueError(f"its {path.name} is not what a worker writes: {_peek(path)}")
            messages.append({"type": "result", "index": self.next_result, "result": result})
            self.next_result += 1
        return messages

    def _changed_progress(self) -> list[Message]:
        now = time.monotonic()
        progress = _read_progress(self.folder) if now - self._progress_sent >= PROGRESS_SECONDS else None
        if not progress or progress == self._progress:
            return []
        self._progress, self._progress_sent = progress, now
        return [{"type": "progress", **progress}]

    def _describe_end(self, returncode: int, *, garbage: str | None = None) -> Message:
        tail = _tail(self.log)
        failure = _read_failure(self.folder)
        if garbage:
            failure = {"status": "failed", "message": garbage}
        elif returncode < 0 and not failure:
            was_oom = -returncode == signal.SIGKILL and count_oom_kills() > self._oom_kills
            was_oom |= self._has_memory_limit and any(text in tail for text in OUT_OF_MEMORY)
            message = f"killed by {_signal_name(-returncode)}{', out of memory' if was_oom else ''}"
            failure = {"status": "oom" if was_oom else "failed", "message": message}
        elif not failure:
            failure = {"status": "failed", "message": f"exited with code {returncode} and without a word"}
        progress = _read_progress(self.folder) or self._progress or {"phase": "start", "index": -1}
        return {
            "type": "exited",
            "returncode": returncode,
            "failure": {"phase": progress["phase"], "index": progress["index"], **failure},
            "log": str(self.log),
            "log_tail": tail,
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


def _log_path(message: Message, scratch: Path) -> Path:
    """In the run's folder where this host sees the very same folder, else in this agent's scratch."""
    logs = Path(message["logs"])
    name = f"generation{message['generation']:04d}-rank{message['description']['rank']}.log"
    is_shared = (logs / message["token"]).exists()
    return (logs if is_shared else scratch) / name


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file that a worker has written whole; None when there is none, or not one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_progress(folder: Path) -> dict[str, Any] | None:
    """Where the worker is, as far as its file makes sense."""
    value = _read_json(folder / "progress.json") or {}
    if not isinstance(value.get("phase"), str) or type(value.get("index")) is not int:
        return None
    numbers = {key: value[key] for key in PROGRESS_NUMBERS if type(value.get(key)) in (int, float)}
    return {"phase": value["phase"][:40], "index": value["index"], **numbers}


def _read_failure(folder: Path) -> dict[str, Any]:
    """Why the worker ended, in its own words, as far as its file makes sense."""
    value = _read_json(folder / "failure.json") or {}
    if value.get("status") not in STATUSES or not isinstance(value.get("message"), str):
        return {}
    kept: dict[str, Any] = {"status": value["status"], "message": value["message"][:500], "is_echo": value.get("is_echo") is True}
    if isinstance(value.get("phase"), str) and type(value.get("index")) is int:
        kept |= {"phase": value["phase"][:40], "index": value["index"]}
    return kept


def _peek(path: Path) -> str:
    """The first bytes of a file, printable."""
    with path.open("rb") as file:
        return ascii(file.read(40))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""
