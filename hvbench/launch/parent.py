"""Is the command that started this launch still there? After a `kill -9` of it nobody else would notice.

An mpirun that is killed leaves its ranks running. `horovodrun --mpi` becomes `/bin/sh -c "mpirun …"`, and a shell that is
killed leaves even mpirun. The ranks would train on, and no Ctrl-C would reach them. Rank 0 therefore looks now and then
at the process that started it and, where it runs on that host, at horovodrun's shell.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.launch.context import Context
from hvbench.launch.turns import VARIABLE

LOOK_SECONDS = 1.0
HOROVODRUN_BECOMES = (b"/bin/sh", b"-c", b"mpirun --allow-run-as-root --tag-output ")
MAX_ANCESTORS = 32


@dataclass(frozen=True, kw_only=True)
class Process:
    """One life of a process: a number that comes up again has another start."""

    pid: int
    parent: int
    started: str

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return read_process(self.pid) == self


def read_process(pid: int) -> Process | None:
    """The process `pid`; None when there is none, or when it only waits to be reaped."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )  # a command's name may hold anything
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid=pid, parent=int(fields[1]), started=fields[19])


def find_launchers(context: Context) -> list[Process]:
    """The processes without which this launch is over: this one's parent, and the shell that `horovodrun --mpi` became.

    None where nothing launched this process: whoever started it by hand may leave (nohup, a closed terminal). In turns
    `hvbench ab` did, and without its turn server no rank continues.
    """
    if context.launcher == "none" and VARIABLE not in os.environ:
        return []
    found = (read_process(os.getppid()), find_ancestor(HOROVODRUN_BECOMES))
    return [process for process in found if process]


def find_ancestor(begins: tuple[bytes, ...]) -> Process | None:
    """The nearest ancestor whose first words are those of `begins`, the last of them as far as it goes."""
    process = read_process(os.getppid())
    for _ in range(MAX_ANCESTORS):
        if process is None or process.pid <= 1:
            return None
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            *first, last = words[: len(begins)]
            if (*first,) == begins[:-1] and last.startswith(begins[-1]):
                return process
        process = read_process(process.parent)
    return None


@contextlib.contextmanager
def watching(processes: Sequence[Process], on_death: Callable[[], None]) -> Iterator[None]:
    """Call `on_death` once, from a thread, if one of `processes` ends before the block does."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            if not all(process.is_alive() for process in processes):
                on_death()
                return

    if processes:
        threading.Thread(target=watch, name="hvbench-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
