"""The process of people's own training as its agent sees it: a worker's folder, and another program in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from hvbench.launch.messages import Start
from hvbench.launch.process import WorkerProcess
from hvbench.launch.script import END, VARIABLE, find_processes

END_SECONDS = 5.0  # for a script to leave after its measurement: to close files, to leave its process group
MAX_LINE = 300  # characters of its log's last line, in a message
TEACH = (
    "it never called the probe: put its loop into `with probe.training() as training:` and each step into "
    "`with training.step():` (from hvbench import probe)"
)


class ScriptProcess(WorkerProcess):
    """One rank of a script."""

    module = "hvbench.launch.script"

    def kill(self) -> None:
        """Let a script that has measured leave by itself, for a moment; then end it, and whatever it has started."""
        if self.next_result:
            (self.folder / END).touch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=END_SECONDS)
        for process in find_processes(self.folder):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        super().kill()

    def _environment(self, order: Start) -> dict[str, str]:
        environment = super()._environment(order)
        own = {"PATH": path_of_scripts(environment), VARIABLE: str(self.folder), "PYTHONUNBUFFERED": "1"}
        return environment | own

    def _explain_exit(self, returncode: int, tail: str) -> str:
        """Its log's last line where it failed; what it lacks where it ended well and has measured nothing."""
        if returncode == 0 and not (self.folder / "pid").exists():
            return f"ended without a measurement: {TEACH}"
        if returncode == 0:
            return "exited with code 0 in the middle of its training"
        lines = [line.strip() for line in tail.splitlines() if line.strip()]
        last = "".join(letter if letter.isprintable() else "?" for letter in lines[-1])[:MAX_LINE] if lines else ""
        return f"exited with code {returncode}{f': {last}' if last else ' and without a word'}"


def path_of_scripts(environment: Mapping[str, str]) -> str:
    """The PATH in which a script's command is looked up: where no environment is active, `python` is that of hvbench's own."""
    path = environment.get("PATH", os.defpath)
    is_active = {"VIRTUAL_ENV", "CONDA_PREFIX"} & set(environment) or sys.prefix == sys.base_prefix
    return path if is_active else os.pathsep.join([f"{sys.prefix}/bin", path])
