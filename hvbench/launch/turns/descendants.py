"""Suspends and resumes all processes that a script has started, in whatever process group or session (Linux).

A script's supervisor (`hvbench.launch.script`) is the parent of what loses its own parent below it, so all of them are its
descendants. They are found in /proc/*/task/*/children, and signalled through pidfds: a process id that is used again means nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from hvbench.launch.script import MODULE

MAX_ANCESTORS = 100
MAX_LOOKS = 10  # for what has been started while the others were being stopped
AT_REST = ("T", "t", "Z", "X")  # states of a process: stopped, traced, ended


class Descendants:
    """The descendants of one supervisor; which there are is looked up whenever they are suspended."""

    def __init__(self, supervisor: int) -> None:
        """Raises OSError where there is no such process."""
        self._supervisor = supervisor
        self._handle = os.pidfd_open(supervisor)
        self._known: dict[int, int] = {}  # process id -> pidfd of those that were found, parents first
        self._stopped: list[int] = []  # process ids, in the order in which they were

    def suspend(self) -> None:
        """Stop all that run, and look for more until there is nothing new: what a parent starts before it stops itself."""
        for pid in list(self._known):
            self._stop(pid)
        is_new = True
        for _ in range(MAX_LOOKS):
            if not is_new or not is_there(self._handle):
                return
            is_new = False
            for parent, pid in walk(self._supervisor):
                if pid not in self._known and self._learn(pid, parent=parent):
                    self._stop(pid)
                    is_new = True

    def resume(self) -> None:
        """Let those that were stopped run again, children first; what the script itself had stopped stays so."""
        while self._stopped:
            with contextlib.suppress(OSError, KeyError):  # it is gone
                signal.pidfd_send_signal(self._known[self._stopped.pop()], signal.SIGCONT)

    def close(self) -> None:
        """Resume all, and forget them."""
        self.resume()
        for handle in (*self._known.values(), self._handle):
            os.close(handle)
        self._known.clear()

    def _learn(self, pid: int, *, parent: int) -> bool:
        """Keep the pidfd of a child of `parent`, if it still is one now that nobody else can get its number."""
        with contextlib.suppress(OSError):
            self._known[pid] = os.pidfd_open(pid)
            if read_state(pid)[1] == parent:
                return True
        self._forget(pid)
        return False

    def _forget(self, pid: int) -> None:
        if (handle := self._known.pop(pid, None)) is not None:
            os.close(handle)

    def _stop(self, pid: int) -> None:
        """Stop a known process, unless it is at rest or gone."""
        try:
            if read_state(pid)[0] not in AT_REST:
                signal.pidfd_send_signal(self._known[pid], signal.SIGSTOP)
                self._stopped.append(pid)
        except PermissionError:  # it has become another user's
            pass
        except OSError:
            self._forget(pid)


def is_there(handle: int) -> bool:
    """Whether the process of a pidfd has not been reaped."""
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(handle, 0)
        return True
    return False


def find_supervisor(pid: int) -> int | None:
    """The process that supervises the script which a process belongs to; None for one that is no script's, or where the
    kernel does not list children.

    What this process itself descends from supervises somebody else: hvbench that a script of hvbench has called.
    """
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return None
    own = set(ancestors(os.getpid()))
    for ancestor in ancestors(pid):
        if ancestor in own:
            return None
        if MODULE.encode() in _read(f"/proc/{ancestor}/cmdline").split(b"\0"):
            return ancestor
    return None


def ancestors(pid: int) -> Iterator[int]:
    """A process, its parent, and so on."""
    for _ in range(MAX_ANCESTORS):
        yield pid
        try:
            _, pid = read_state(pid)
        except OSError:
            return
        if pid <= 0:
            return


def walk(pid: int) -> Iterator[tuple[int, int]]:
    """(parent, child) for every descendant, parents first; a child's own are looked up after the caller has seen it."""
    for task in _list(f"/proc/{pid}/task"):
        for child in map(int, _read(f"/proc/{pid}/task/{task}/children").split()):
            yield pid, child
            yield from walk(child)


def read_state(pid: int) -> tuple[str, int]:
    """State (a letter) and parent of a process, as `man 5 proc` has them; raises OSError where it is gone."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        state, parent, *_ = file.read().rpartition(b")")[2].decode().split()
    return state, int(parent)


def _list(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _read(path: str) -> bytes:
    """The content of a file of a process; none where it is gone."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
