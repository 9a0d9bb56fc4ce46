"""Trainings of people's own that go wrong, in real launches: each ends in its outcome and costs no other launch anything."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hvbench.launch.diagnosis import last_words
from hvbench.records.record import Outcome, Record
from hvbench.records.store import RunFolder
from tests import patience
from tests.faults.sweeps import RunningSweep, read_command, start_sweep, wait_until

pytestmark = pytest.mark.slow
FAULTY = Path(__file__).with_name("faulty.py")
WARMUP, STEPS = 2, 6
TRAINED_5 = "trained 5 of the 8 steps asked for (warmup_steps + steps)"
LEFT_AT_3 = "when it had trained 3 of the 8 steps asked for (warmup_steps + steps)"
SECOND_LINE = "RuntimeError: a  [31mbad  batch … of the second line"

# fault -> status, rank, phase, message; good launches lie between the bad ones
EXPECTED: dict[str, tuple[str, int | None, str | None, str | None]] = {
    "raises before": ("failed", 0, "script", "exited with code 1: RuntimeError: no such?[31m data … in this file"),
    "none": ("ok", None, None, None),
    "exits before": ("failed", 0, "script", "ended without a measurement: it never called the probe; "),
    "forks": ("ok", None, None, None),
    "exits before, 3": ("failed", 0, "script", "exited with code 3 and without a word"),
    "daemonises": ("ok", None, None, None),
    "raises": ("failed", 0, "measure", SECOND_LINE),
    "ignores SIGTERM": ("ok", None, None, None),
    "exits": ("failed", 0, "measure", f"exited with code 0 {LEFT_AT_3}"),
    "exits, 3": ("failed", 0, "measure", f"exited with code 3 {LEFT_AT_3}"),
    "prints binary": ("ok", None, None, None),
    "prints binary and raises": ("failed", 0, "measure", SECOND_LINE),
    "exits at once": ("failed", 0, "measure", "exited with code 0 in the middle of its training"),
    "killed": ("failed", 1, "measure", "killed by SIGKILL"),
    "raises on one rank": ("failed", 1, "measure", "RuntimeError: of rank 1"),
    "out of memory before": ("oom", 0, "script", "exited with code 1: MemoryError"),
    "out of memory": ("oom", 0, "measure", "MemoryError"),
    "two trainings": ("failed", 0, "measure", "ProbeError: a second probe.training() in this process"),
    "closes its output": ("failed", 0, "measure", "RuntimeError: into nothing"),
    "fewer steps": ("failed", 0, "measure", TRAINED_5),
    "fewer steps on one rank": ("failed", 1, "measure", TRAINED_5),
    "evaluates differently": ("failed", 1, "measure", "trained 6 steps, rank 0 8: every rank has to train as many"),
    "diverges": ("diverged", 0, "measure", "loss nan at step 3"),
    "goes on": ("ok", None, None, None),
}
HANGS = ["none", "hangs and daemonises", "hangs before"]


def suite_text(faults: list[str], *, more: str = "") -> str:
    """A suite of one launch a fault, on two ranks."""
    script = f'question = "Does one cost another?"\n[script]\ncommand = "python {FAULTY.name} {{fault}}"\n'
    return f"{script}[axes]\nfault = {json.dumps(faults)}\n[measure]\nwarmup_steps = {WARMUP}\nsteps = {STEPS}\n{more}"


def start(text: str, folder: Path, *options: str) -> RunningSweep:
    folder.mkdir(exist_ok=True)
    shutil.copy(FAULTY, folder)
    return start_sweep(text, folder, options=("--json", "--no-report", *options))


def finish(sweep: RunningSweep) -> tuple[int, str]:
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    assert find_commands(sweep.folder.path.parent) == []
    assert "Traceback" not in output, output
    return code, output


def find_commands(folder: Path) -> list[str]:
    """Command lines that name the folder in which the scripts ran, of processes that were told nothing else of it."""
    commands = (read_command(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [command for command in commands if command.endswith(f" {folder}")]


def read(folder: RunFolder) -> dict[str, Record]:
    """Fault -> its newest record."""
    records, problems = folder.read_records()
    assert problems == []
    return {str(record.point.values["fault"]): record for record in records}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What is left of the sweeps."""

    code: int
    records: dict[str, Record]
    events: list[dict[str, Any]]
    hanging: Path  # the folder of the sweep in which scripts hang, broken off in the second launch
    broken_off: tuple[int, str]
    timed_out: tuple[int, str]  # the same sweep gone on with, to time limits


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two sweeps at a time, for one of them only waits."""
    faults, hanging = (tmp_path_factory.mktemp(name) for name in ("faults", "hangs"))
    stopping = "stop_at_target = true\ntarget_loss = 0.5\n"
    sweep = start(suite_text(list(EXPECTED), more=stopping), faults, "--memory-limit", "1GiB")
    other = start(suite_text(HANGS), hanging)

    def hangs() -> bool:
        assert other.process.poll() is None, other.wait()[1]
        return any((hanging / "run" / "logs").glob("generation0001-*")) and bool(read(other.folder))

    wait_until(hangs, seconds=patience.SECONDS, what=other.describe_processes)
    other.press_ctrl_c()
    broken_off = finish(other)
    timed_out = finish(start(suite_text(HANGS), hanging, "--resume", "--timeout", "15"))
    code, output = finish(sweep)
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return Ended(
        code=code,
        records=read(sweep.folder),
        events=events,
        hanging=hanging,
        broken_off=broken_off,
        timed_out=timed_out,
    )


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_ends_in_its_outcome(ended: Ended, fault: str) -> None:
    status, rank, phase, message = EXPECTED[fault]
    outcome = ended.records[fault].outcome
    assert (outcome.status, outcome.rank, outcome.phase) == (status, rank, phase), outcome
    if message is None:
        assert outcome == Outcome(status="ok")
        assert [len(rank.step_seconds) for rank in ended.records[fault].ranks] == [WARMUP + STEPS] * 2
    else:
        assert outcome.message.startswith(message) and outcome.message.isprintable()


def test_events_say_what_records_say(ended: Ended) -> None:
    assert ended.code == 1
    launches = [event for event in ended.events if event["event"] == "launch"]
    named = {event["point_id"]: event for event in launches}
    assert len(launches) == len(named) == len(EXPECTED)
    for record in ended.records.values():
        event = named[record.point_id]
        for field in ("status", "rank", "phase", "message", "log", "step", "last_loss"):
            assert event[field] == getattr(record.outcome, field)
        assert (event["tokens_per_second"] is not None) == (record.outcome.status == "ok")


def test_ctrl_c_and_time_limits_leave_things_tidy_and_resume_goes_on(ended: Ended) -> None:
    code, output = ended.broken_off
    run = RunFolder(ended.hanging / "run")
    assert code == 130 and "stopped by SIGINT; what was measured is safe, go on with --resume" in output
    code, output = ended.timed_out
    outcomes = {fault: record.outcome for fault, record in read(run).items()}
    assert (code, outcomes["none"].status) == (1, "ok"), output
    assert "launches did not end in ok; see " in output and output.rstrip().endswith("logs"), "--no-report"
    assert not (run.path / "report.html").exists()
    inside, before = outcomes["hangs and daemonises"], outcomes["hangs before"]
    assert (inside.status, inside.phase) == ("timeout", "measure")
    assert inside.step in (2, 3), "progress is written every quarter of a second"
    assert inside.message.startswith("not finished after 15 s; rank 0 was in within (faulty.py:")
    assert (before.status, before.phase) == ("timeout", "script")
    assert before.message == (
        "not finished after 15 s; rank 0 has not come to its training (`with probe.training() as training:`)"
    )
    code, output = finish(start(suite_text(HANGS), ended.hanging, "--resume", "--retry", "oom"))
    assert (code, {fault: record.outcome for fault, record in read(run).items()}) == (0, outcomes), output
    (ended.hanging / "mended").touch()
    code, output = finish(start(suite_text(HANGS), ended.hanging, "--resume"))
    assert code == 0, output
    assert {record.outcome.status for record in read(run).values()} == {"ok"}


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    text = suite_text(["none"]).replace("python ", "no-such-program ")
    sweep = start(text, tmp_path)
    code, output = finish(sweep)
    outcome = read(sweep.folder)["none"].outcome
    assert (code, outcome.status, outcome.phase) == (1, "failed", "script"), output
    assert outcome.message == "cannot run no-such-program: No such file or directory"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo\n\n", "two"),
        ('Traceback (most recent call last):\n  File "x"\n    f()\nValueError: a\nb\nc\n', "ValueError: a … c"),
        ("Traceback (most recent call last):\n  File", "File"),
        ("Traceback (most recent call last):\n  x\nValueError: a\x1b\n", "ValueError: a?"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_last_words(log: str, words: str) -> None:
    assert last_words(log) == words
