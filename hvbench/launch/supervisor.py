"""Waits for a script and ends all that it leaves: every process that it has started, in whatever session, with whatever environment (Linux).

The process that calls this is a *child subreaper*: what loses its parent below it becomes its child. So all that a script starts stays
its descendant, and ends with the script, or when the agent asks for it by SIGTERM, or is gone, which sends the same.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time

LOOK_SECONDS = 5.0  # between looks for orphans that have ended, and wait to be reaped
POLL_SECONDS = 0.1  # the same where the kernel does not tell when a process ends
END_SECONDS = 5.0  # to end what has been started, and what that starts meanwhile


def supervise(script: int) -> int:
    """Wait until the child process `script` ends or SIGTERM comes, and end all that is left; the script's status, as of `os.waitpid`."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)  # it wakes
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    seconds = POLL_SECONDS
    with contextlib.suppress(OSError):
        # and not SIGCHLD, which every turn of the script's would send
        poll.register(os.pidfd_open(script), select.POLLIN)
        seconds = LOOK_SECONDS
    ended: dict[int, int] = {}
    is_asked = False
    while script not in ended and not is_asked:
        is_asked = any(found == woken.fileno() for found, _ in poll.poll(seconds * 1e3))
        ended |= reap()
    return (ended | end_children()).get(script, signal.SIGKILL)


def reap() -> dict[int, int]:
    """Process id -> status of the children that have ended."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[found[0]] = found[1]
    return ended


def end_children() -> dict[int, int]:
    """Kill all descendants, and reap them: process id -> status."""
    ended: dict[int, int] = {}
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        ended |= reap()
        if not has_children():
            break
        import psutil  # most scripts leave nothing

        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.005)
    return ended


def has_children() -> bool:
    """Whether this process has any, those that only wait to be reaped included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_as(status: int) -> None:
    """End this process as that one ended whose status this is: by its code, or by its signal. Never returns."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no disposition
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code % 256)
