"""Is the command that started this launch still there? After `kill -9` of `horovodrun --mpi` nobody else would notice.

horovodrun becomes `/bin/sh -c "mpirun …"`. A shell that is killed takes nothing along: mpirun and all ranks train on,
and nobody can stop them with Ctrl-C. Rank 0, where it runs on that host, therefore looks at it now and then.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a command's name may hold anything
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid=pid, parent=int(fields[1]), started=fields[19])


def find_horovodrun() -> Process | None:
    """The ancestor that `horovodrun --mpi` has become; None without one on this host."""
    return find_ancestor(HOROVODRUN_BECOMES)


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
def watching(process: Process | None, on_death: Callable[[], None]) -> Iterator[None]:
    """Call `on_death` once, from a thread, if `process` ends before the block does."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            if not process.is_alive():
                on_death()
                return

    if process:
        threading.Thread(target=watch, name="hvbench-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
