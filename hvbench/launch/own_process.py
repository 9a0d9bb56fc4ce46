"""What a worker asks of the kernel for itself: to end with its agent, its cores, no memory beyond a limit (Linux)."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

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


def limit_memory(limit_bytes: int | None) -> None:
    """Let allocations fail beyond `limit_bytes` of private writable memory (None: no limit).

    RLIMIT_DATA and not RLIMIT_AS: a framework maps far more addresses than it ever uses.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if limit_bytes is None else limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
