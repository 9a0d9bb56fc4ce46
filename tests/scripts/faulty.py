"""A training of nothing that goes wrong in one of many ways: python faulty.py FAULT. Names of faults say what happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hvbench import probe

FAULT = "none" if Path("mended").exists() else sys.argv[1]
IS_SECOND = os.environ["RANK"] == "1"
HOUR = 3600.0
NOISE = bytes(range(256)) * 400


def before() -> None:
    """What goes wrong before the training begins."""
    if FAULT == "raises before":
        raise RuntimeError("no such\x1b[31m data\nin this file")
    if FAULT == "exits before":
        sys.exit(0)
    if FAULT == "exits before, 3":
        os._exit(3)
    if FAULT == "hangs before":
        time.sleep(HOUR)
    if FAULT == "out of memory before":
        bytearray(2**40)
    if FAULT == "forks":
        leave_child()
    if FAULT == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        leave_child()
    if FAULT in ("daemonises", "hangs and daemonises"):
        if os.fork() == 0:
            os.setsid()
            leave_child()
            # and one that nothing but its descent tells
            os.execve(sys.executable, [sys.executable, "-c", f"import time; time.sleep({HOUR})", os.getcwd()], {})
    if FAULT.startswith("prints binary"):
        os.write(1, NOISE)
        os.write(2, NOISE)


def leave_child() -> None:
    """A process that nobody waits for."""
    if os.fork() == 0:
        time.sleep(HOUR)
        os._exit(0)


def within() -> None:
    """What goes wrong in the fourth step."""
    if FAULT in ("raises", "prints binary and raises"):
        raise RuntimeError("a \x1b[31mbad\x00 batch\nof the second line")
    if FAULT == "exits":
        sys.exit(0)
    if FAULT == "exits, 3":
        sys.exit(3)
    if FAULT == "exits at once":
        os._exit(0)
    if FAULT == "killed" and IS_SECOND:
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "raises on one rank" and IS_SECOND:
        raise RuntimeError("of rank 1")
    if FAULT == "out of memory":
        bytearray(2**40)
    if FAULT.startswith("hangs"):
        time.sleep(HOUR)
    if FAULT == "two trainings":
        with probe.training():
            pass
    if FAULT == "closes its output":
        os.close(1)
        os.close(2)
        raise RuntimeError("into nothing")
    if FAULT == "fills its output":
        while True:
            os.write(1, NOISE)


def count_steps() -> int:
    if FAULT == "fewer steps" or (FAULT == "fewer steps on one rank" and IS_SECOND):
        return 5
    return 1000


before()
with probe.training(tokens_per_step=8) as training:
    for step in range(count_steps()):
        with training.step():
            if step == 3:
                within()
            time.sleep(0.001)
        training.log(loss=float("nan") if FAULT == "diverges" and step == 3 else 1 / (step + 1))
        if FAULT == "evaluates differently" and step == 5:
            with training.paused():
                training.evaluate(loss=0.1 if IS_SECOND else 9.0)
if FAULT == "goes on":
    time.sleep(HOUR)
