"""What a worker asks of the kernel for itself: to end with its agent, and to be refused memory beyond a limit (Linux)."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None) -> None:
    """Ask the kernel to kill this process when its agent ends, however the agent ends; it may execute another program then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent not in (None, os.getppid()):
        os._exit(1)  # the agent ended before the request


def limit_memory(limit_bytes: int | None) -> None:
    """Let allocations fail beyond `limit_bytes` of private writable memory (None: no limit).

    RLIMIT_DATA and not RLIMIT_AS: a framework maps far more addresses than it ever uses.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if limit_bytes is None else limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
