"""One rank's worker as its agent sees it: a process, and the files that it leaves (`hvbench.worker` says which)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from hvbench.launch.context import without_launcher
from hvbench.launch.diagnosis import OUT_OF_MEMORY, is_echo
from hvbench.launch.environments import link_source, variables_for
from hvbench.launch.messages import (
    Exited,
    Json,
    Message,
    Progress,
    Result,
    Start,
    WorkerDescription,
    WorkerFailure,
    end_file,
)
from hvbench.launch.settings import without_empty_settings
from hvbench.launch.task import FailureStatus

PROGRESS_SECONDS = 0.5
PROGRESS_COUNTS = ("step", "steps", "timed_tokens", "validation_step", "validation_tokens")
PROGRESS_NUMBERS = (*PROGRESS_COUNTS, "loss", "timed_seconds", "validation_loss", "validation_seconds")
MOST = 2.0**53  # of any of them; what is larger, or not finite, no worker writes
LOG_TAIL_BYTES = 4000
STACK_SECONDS = 5.0  # a healthy process answers SIGUSR1 in milliseconds, a busy machine's later
REPORTED_STATUSES = (FailureStatus.OOM, FailureStatus.FAILED, FailureStatus.TIMEOUT, FailureStatus.DIVERGED)
UNEXPLAINED = "and without a word"  # ends the message of an exit that nothing explains


class WorkerProcess:
    """One worker and the files that it leaves."""

    def __init__(self, order: Start, *, scratch: Path) -> None:
        """Start the worker that `order` describes; its files go to a folder below `scratch`. Raises OSError."""
        (worker,) = order.workers
        self.generation = order.generation
        self.rank = worker.rank
        self.folder = scratch / f"generation-{self.generation}"
        self.log = log_path(order, scratch)
        self.scratch = scratch
        self._prepare(replace(worker, agent_pid=os.getpid()))
        self._start(order)

    def _prepare(self, worker: WorkerDescription) -> None:
        """Make the worker's folder and leave there what it has to do."""
        self.folder.mkdir(parents=True)
        (self.folder / "generation.json").write_text(json.dumps(vars(worker)), encoding="utf-8")
        self.next_result = 0
        self.is_reported = False
        self._has_memory_limit = bool(worker.memory_limit_bytes)
        self._progress: Json = {}
        self._progress_sent = 0.0
        self._oom_kills = count_oom_kills()

    module = "hvbench.worker"  # what is started, with the folder as its one argument

    def _start(self, order: Start) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # -P: a file random.py in the folder where hvbench is called must not become a module
                [order.workers[0].python or sys.executable, "-P", "-m", self.module, str(self.folder)],
                env=self._environment(order),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for rank 0; the worker ends with its agent
            )

    def _environment(self, order: Start) -> dict[str, str]:
        return order_environment(order, scratch=self.scratch)

    def news(self) -> list[Message]:
        """What has happened since the last call: results first, then progress, then the worker's end."""
        return self._news(self.process.poll())  # before the files: what it wrote before its end is then seen

    def _news(self, returncode: int | None) -> list[Message]:
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

    def stack(self, rank: int) -> str:
        """What every thread of the worker is doing; empty if not even its signal handler in C answers.

        `rank` is the rank that is asked for: that of the one worker here.
        """
        path = self.folder / "stack.txt"
        if self.process.poll() is not None or not path.exists():
            return ""
        self._send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + STACK_SECONDS
        text, before = "", None
        while time.monotonic() < deadline and not (text and text == before):
            time.sleep(0.05)
            text, before = path.read_text(encoding="utf-8", errors="replace"), text
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"\nStacks when the time was up:\n{text}\n" if text else "\nTime was up; no answer to SIGUSR1.\n")
        return text

    def place(self) -> Json:
        """Where the worker is or was, by its progress: `phase`, `index`, `step` and `loss` of a WorkerFailure."""
        progress = _read_progress(self.folder) or self._progress or {"phase": "start", "index": -1}
        step = progress.get("step") or None
        loss = progress.get("loss") if step else None
        return {"phase": progress["phase"], "index": progress["index"], "step": step, "loss": loss}

    def end_early(self, index: int) -> None:
        """Let the worker train job `index` no further, if it still does."""
        with contextlib.suppress(OSError):  # a folder that is gone: so is the worker
            (self.folder / end_file(index)).touch()

    def _explain_exit(self, returncode: int, tail: str) -> Json:
        """Status and message of an exit that left no reason; `tail` is the end of its log."""
        return {"status": FailureStatus.FAILED, "message": f"exited with code {returncode} {UNEXPLAINED}"}

    def kill(self) -> None:
        """End the worker's whole process group, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send_signal(self, number: signal.Signals) -> None:
        """Send it to the process that measures: the child of this agent, or a descendant of it."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "pid").read_text(encoding="utf-8")), number)

    def _results(self) -> list[Message]:
        messages: list[Message] = []
        while (path := self.folder / f"result-{self.next_result}.json").exists():
            result = _read_json(path)
            if result is None:
                raise ValueError(f"its {path.name} is not what a worker writes: {_peek(path)}")
            messages.append(Result(generation=self.generation, rank=self.rank, index=self.next_result, result=result))
            self.next_result += 1
        return messages

    def _changed_progress(self) -> list[Message]:
        now = time.monotonic()
        progress = _read_progress(self.folder) if now - self._progress_sent >= PROGRESS_SECONDS else None
        if not progress or progress == self._progress:
            return []
        self._progress, self._progress_sent = progress, now
        return [Progress(generation=self.generation, rank=self.rank, **progress)]

    def _describe_end(self, returncode: int, *, garbage: str | None = None) -> Exited:
        tail = _tail(self.log)
        failure = _read_failure(self.folder)
        if garbage:
            failure = {"status": FailureStatus.FAILED, "message": garbage}
        elif returncode < 0 and not failure:
            was_oom = -returncode == signal.SIGKILL and count_oom_kills() > self._oom_kills
            was_oom |= self._has_memory_limit and any(text in tail for text in OUT_OF_MEMORY)
            message = f"killed by {_signal_name(-returncode)}{', out of memory' if was_oom else ''}"
            # A library that misses another rank may abort (NCCL's watchdog, TensorFlow's coordination service).
            was_aborted = -returncode == signal.SIGABRT and is_echo(tail)
            failure = {"status": FailureStatus.OOM if was_oom else FailureStatus.FAILED, "message": message}
            failure["is_echo"] = was_aborted and not was_oom
        elif not failure:
            failure = self._explain_exit(returncode, tail)
        return Exited(
            generation=self.generation,
            rank=self.rank,
            returncode=returncode,
            failure=WorkerFailure(**self.place() | failure),
            log=str(self.log),
            log_tail=tail,
        )


def worker_environment(changes: dict[str, str]) -> dict[str, str]:
    """This process's environment without what its launcher said of it and what is not set, and with `changes`."""
    return without_empty_settings(without_launcher(os.environ)) | changes


def order_environment(order: Start, *, scratch: Path) -> dict[str, str]:
    """The environment of what `order` starts; another interpreter finds hvbench in a folder below `scratch`."""
    variables, python = worker_environment(order.environment), order.workers[0].python
    return variables_for(Path(python), source=link_source(scratch), environment=variables) if python else variables


def count_oom_kills() -> int:
    """Processes that the kernel has killed for memory since boot, as far as it tells."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


def log_path(order: Start, scratch: Path) -> Path:
    """The log of the first worker of `order`: in the run's folder where this host shares it, else in `scratch`."""
    logs = Path(order.logs)
    name = f"generation{order.generation:04d}-rank{order.workers[0].rank}.log"
    is_shared = (logs / order.token).exists()
    return (logs if is_shared else scratch) / name


def _read_json(path: Path) -> Json | None:
    """The object in a file that a worker has written whole; None when there is none, or not one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_progress(folder: Path) -> Json | None:
    """Fields of a Progress that the worker wrote; None where its file holds none."""
    value = _read_json(folder / "progress.json") or {}
    if not isinstance(value.get("phase"), str) or type(value.get("index")) is not int:
        return None
    return {"phase": value["phase"][:40], "index": value["index"], **_plausible_numbers(value)}


def _read_failure(folder: Path) -> Json:
    """Fields of a WorkerFailure that the worker wrote itself; empty where its file holds none."""
    value = _read_json(folder / "failure.json") or {}
    statuses = [status for status in REPORTED_STATUSES if status == value.get("status")]
    if not statuses or not isinstance(value.get("message"), str):
        return {}
    kept: Json = {
        "status": statuses[0],
        "message": value["message"][:500],
        "is_echo": value.get("is_echo") is True,
    }
    if isinstance(value.get("phase"), str) and type(value.get("index")) is int:
        numbers = _plausible_numbers(value)
        step = numbers.get("step") or None
        kept |= {"phase": value["phase"][:40], "index": value["index"], "step": step}
        kept["loss"] = numbers.get("loss") if step else None
    return kept


def _plausible_numbers(value: Json) -> Json:
    """Those of PROGRESS_NUMBERS that a worker's file holds and a record can keep."""
    numbers = {key: value[key] for key in PROGRESS_NUMBERS if type(value.get(key)) in (int, float)}
    return {
        key: number
        for key, number in numbers.items()
        if abs(number) < MOST and (key not in PROGRESS_COUNTS or (type(number) is int and number >= 0))
    }


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
