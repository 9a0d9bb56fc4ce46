"""What a worker asks of the kernel for itself: to end with its agent, its cores, its priority, no memory beyond a limit (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from hvbench.launch.turns import VARIABLE

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent ends, however it ends; this process may execute another program then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if parent not in (None, os.getppid()):
        os._exit(1)  # the agent ended before the request


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def keep_to_own_cores(*, local_rank: int, local_size: int) -> None:
    """Bind this process, and what it will start, to its share of the host's cores, where turns are taken.

    Ranks that are woken together may find themselves on one core, and a turn is over before the kernel has spread them. Libraries
    look at the cores when they are imported, so this comes before.
    """
    if os.environ.get(VARIABLE):
        cores = sorted(os.sched_getaffinity(0))
        begin, end = (len(cores) * rank // local_size for rank in (local_rank, local_rank + 1))
        os.sched_setaffinity(0, cores[begin : max(end, begin + 1)])


def yield_to_others(niceness: int, *, sessions: Iterable[int] = ()) -> None:
    """Lower the priority of this process, and of what it will start: it interrupts nobody.

    `sessions`: processes that it has started, each in a session of its own. Where the kernel shares the cores between sessions
    (sched(7), autogroups), their niceness is what counts.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for process in (os.getpid(), *sessions):
        with contextlib.suppress(OSError):  # a kernel without them, a process that is gone
            write_patiently(Path(f"/proc/{process}/autogroup"), str(niceness))


def write_patiently(path: Path, text: str) -> None:
    """Write to a file of the kernel's that takes a tenth of a second between two writes. Raises OSError."""
    for _ in range(20):
        try:
            path.write_text(text, encoding="ascii")
            return
        except BlockingIOError:
            time.sleep(0.1)


def limit_memory(limit_bytes: int | None) -> None:
    """Let allocations fail beyond `limit_bytes` of private writable memory (None: no limit).

    RLIMIT_DATA and not RLIMIT_AS: a framework maps far more addresses than it ever uses.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if limit_bytes is None else limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
