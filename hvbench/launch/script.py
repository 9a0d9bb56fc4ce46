"""Starts people's own training: `python -m hvbench.launch.script FOLDER` runs the command that FOLDER/generation.json has.

The script dies with its agent, obeys the memory limit, has its cores before its first line, and its folder is that of a worker,
in which `hvbench.probe` writes what a worker writes. This process stays until the script ends, and ends as it did.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from hvbench.io.atomic import write_json
from hvbench.launch.messages import WorkerDescription
from hvbench.launch.own_process import adopt_orphans, die_with_parent, keep_to_own_cores, limit_memory
from hvbench.launch.supervisor import end_as, supervise
from hvbench.launch.task import FailureStatus

# Signals that an agent, or Python, ignores, and what they start would, too.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
MODULE = "hvbench.launch.script"  # this one, by which a supervisor is known among processes
PHASE = "script"  # what it does before its training begins
NOT_BEGUN = "has not come to its training (`with probe.training() as training:`)"
STOPPED = "stopped early"  # what it is in, in the progress of a rank that a target or its patience has ended, until it has a result
EVALUATES = "evaluate"  # what it is in during a pause
FINISHED = "finished"  # it has a result
# Names the folder, for the probe, and is what its processes are found by, whatever session they are in.
VARIABLE = "HVBENCH_PROBE"
END = "end"  # name of the file in the folder that tells the probe that every rank has measured


def main(folder: Path) -> None:
    """Run the command in its folder, and leave no process of it; what cannot be executed is a failure of the launch. Never returns."""
    about = WorkerDescription.from_json(json.loads((folder / "generation.json").read_text(encoding="utf-8")))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which agents ignore, and what they start with them
    die_with_parent(about.agent_pid, signal.SIGTERM)
    adopt_orphans()
    write_json(folder / "progress.json", {"index": 0, "phase": PHASE, "step": 0}, durable=False)
    supervisor = os.getpid()
    script = os.fork()
    if not script:
        execute(about, folder, parent=supervisor)
    end_as(supervise(script))


def execute(about: WorkerDescription, folder: Path, *, parent: int) -> None:
    """Become the script, in a session and process group of its own. Never returns."""
    os.setsid()
    die_with_parent(parent)
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(about.folder)
        keep_to_own_cores(local_rank=about.local_rank, local_size=about.world_size)
        limit_memory(about.memory_limit_bytes)
        os.execvpe(about.command[0], about.command, {**os.environ, **about.environment})
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a word
        what = about.folder if isinstance(error, OSError) and error.filename == about.folder else about.command[0]
        message = f"cannot run {what}: {getattr(error, 'strerror', None) or error}"
        failure = {"status": FailureStatus.FAILED.value, "message": message, "index": 0, "phase": PHASE}
        write_json(folder / "failure.json", failure)
        os._exit(127)


def find_processes(folder: Path, *, variable: str = VARIABLE) -> list[int]:
    """Process ids of all that was started with this folder in an environment variable, in whatever process group (Linux)."""
    mark = f"{variable}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
