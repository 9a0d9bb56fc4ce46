"""Real sweeps that are meant to go wrong: started as users start them, marked so that every process can be found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.plan.jobs import Job, make_plan
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.suite import parse_suite
from tests import patience

SCRIPTS = Path(sys.executable).parent
MARK = "HVBENCH_TEST_MARK"
NP = 2

# Words before `sweep`, and after it.
LAUNCHERS: dict[str, tuple[list[str], list[str]]] = {
    "alone": (["hvbench"], ["--np", "{np}"]),
    "gloo": (["horovodrun", "--gloo", "-np", "{np}", "hvbench"], []),
    "mpi": (["horovodrun", "--mpi", "-np", "{np}", "hvbench"], []),
    "mpirun": (["mpirun", "--oversubscribe", "-np", "{np}", "hvbench"], []),
}

SUITE = """
question = "Does a bad point cost another?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 2
data = "synthetic"
[axes]
framework = {frameworks}
seed = {seeds}
[measure]
warmup_steps = 2
steps = 3
ceilings = false
"""


def suite_text(points: int, *, frameworks: Sequence[str] = ("pytorch", "tensorflow")) -> str:
    """A suite of `points` small points, the same number in every framework."""
    return SUITE.format(frameworks=json.dumps(list(frameworks)), seeds=list(range(points // len(frameworks))))


def plan_jobs(text: str, *, np: int = NP) -> list[Job]:
    """The launches of a suite in running order."""
    suite = parse_suite(text, name="chaos", where="chaos.toml")
    return make_plan(suite.points(), suite.measure, world_size=np).jobs


@dataclass(kw_only=True)
class RunningSweep:
    """A launcher and everything below it, in a session of its own, like one terminal's foreground job."""

    process: subprocess.Popen[str]
    folder: RunFolder
    mark: str

    def wait(self, seconds: float = 500.0) -> tuple[int, str]:
        """Exit code, and standard output and error together; a sweep that does not end fails the test and is killed."""
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"the sweep did not end within {seconds:.0f} s:\n{output}") from None
        return self.process.returncode, output

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """`kill -9` of the whole tree, launcher, agents, workers, in no particular order."""
        while pids := find_processes(self.mark):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.poll()
            time.sleep(0.02)

    def wait_for_nobody(self, seconds: float = patience.SECONDS) -> None:
        """Fail unless every process of this sweep ends within `seconds`."""
        wait_until(lambda: not find_processes(self.mark), seconds=seconds, what=lambda: self.describe_processes())

    def describe_processes(self) -> str:
        """Command lines of what still runs."""
        return "still running: " + "; ".join(f"{pid} {read_command(pid)}" for pid in find_processes(self.mark))


def start_sweep(
    text: str,
    folder: Path,
    *,
    launcher: str = "alone",
    np: int = NP,
    options: Sequence[str] = (),
    faults: Iterable[dict[str, Any]] = (),
    environment: dict[str, str] | None = None,
) -> RunningSweep:
    """Start a sweep of the suite `text` into `folder`/run."""
    (folder / "chaos.toml").write_text(text)
    before, after = LAUNCHERS[launcher]
    words = [word.format(np=np) for word in (*before, "sweep", "chaos.toml", "--out", "run", *after)] + list(options)
    return start(words, folder, {"HVBENCH_FAULTS": json.dumps(list(faults))} | (environment or {}))


def start(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> RunningSweep:
    """Start a command in `folder`; what it launches goes into `folder`/run."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            MARK: mark,
        }
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return RunningSweep(process=process, folder=RunFolder(folder / "run"), mark=mark)


def start_and_hang(
    folder: Path, *, launcher: str = "alone", options: Sequence[str] = ()
) -> tuple[RunningSweep, list[str]]:
    """A sweep of three PyTorch points whose second one hangs; returns, with the keys of the three, when that one runs."""
    text = suite_text(3, frameworks=("pytorch",))
    jobs = plan_jobs(text)
    fault = {"kind": "hang", "rank": 1, "point": jobs[1].point.point_id, "phase": "measure"}
    sweep = start_sweep(text, folder, launcher=launcher, options=options, faults=[fault])
    first = sweep.folder.records_path / f"{jobs[0].key}.json"

    def is_there() -> bool:
        assert sweep.process.poll() is None, sweep.wait()[1]
        return first.exists()

    wait_until(is_there, seconds=patience.SECONDS, what=sweep.describe_processes)
    return sweep, [job.key for job in jobs]


def run_sweep(text: str, folder: Path, **choices: Any) -> tuple[int, str]:
    """Run a sweep to its end; nothing may be left running."""
    sweep = start_sweep(text, folder, **choices)
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    return code, output


def find_processes(mark: str, *, command: str = "") -> list[int]:
    """Processes that inherited the mark and are not just waiting to be reaped; `command` must be in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            is_marked = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
            is_zombie = ") Z " in (entry / "stat").read_text()
        except OSError:
            continue
        if is_marked and not is_zombie and command in read_command(int(entry.name)):
            found.append(int(entry.name))
    return found


def read_command(pid: int) -> str:
    """A process's command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def wait_until(condition: Callable[[], Any], *, seconds: float, what: Callable[[], str]) -> None:
    """Fail with `what()` unless `condition` comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what()}")
        time.sleep(0.05)


def read_outcomes(folder: RunFolder) -> dict[str, Record]:
    """The newest record of every launch; all files in the folder must be readable."""
    records, problems = folder.read_records()
    assert problems == []
    return {f"{record.point_id}.r{record.repeat}": record for record in records}
