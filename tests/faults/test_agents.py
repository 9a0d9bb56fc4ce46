"""An agent dies, workers do not start, the whole tree is killed: what was measured is safe, and --resume completes it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hvbench.records.store import RunFolder
from tests import patience
from tests.faults.kill_and_resume import kill_and_resume
from tests.faults.sweeps import find_processes, plan_jobs, read_outcomes, run_sweep, start_and_hang, suite_text


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`hvbench watch` beside a sweep; it has to end by itself."""
    words = [sys.executable, "-m", "hvbench", "watch", str(folder), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.wait(timeout=patience.SECONDS)
        finally:
            process.kill()


def until_a_launch_ends(watcher: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it says until the first launch has ended; the next one hangs."""
    events = []
    for line in watcher.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "launch":
            return events
    raise AssertionError(f"no launch ends: {events}")


def read_events(watcher: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it says until it ends."""
    return [json.loads(line) for line in watcher.stdout]


@pytest.mark.slow
def test_a_killed_agent_ends_the_sweep_tidily_and_resume_goes_on(tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path)
    (agent,) = find_processes(sweep.mark, command="hvbench.launch")
    with watching(sweep.folder.path) as watcher:
        events = until_a_launch_ends(watcher)
        os.kill(agent, signal.SIGKILL)
        code, output = sweep.wait()
        events += read_events(watcher)
    sweep.wait_for_nobody()
    assert code == 5
    assert [event["status"] for event in events if event["event"] == "launch"] == ["ok"]
    assert "its agent is gone" in events[-2]["message"] and watcher.returncode == 0
    assert events[-1]["html"] == str(sweep.folder.path / "report.html")
    assert "rank 1 on " in output and "its agent is gone; what was measured is safe, go on with --resume" in output
    assert "Traceback" not in output
    records = read_outcomes(sweep.folder)
    assert [records[key].outcome.status for key in keys[:2]] == ["ok", "interrupted"] and keys[2] not in records
    assert (sweep.folder.path / "report.md").is_file()

    first = (sweep.folder.records_path / f"{keys[0]}.json").read_bytes()
    code, output = run_sweep(suite_text(3, frameworks=("pytorch",)), tmp_path, options=["--resume"])
    assert code == 0, output
    assert "2 launches" in output and "1 done before" in output
    assert [record.outcome.status for record in read_outcomes(sweep.folder).values()] == ["ok"] * 3
    assert (sweep.folder.records_path / f"{keys[0]}.json").read_bytes() == first
    attempts, problems = sweep.folder.read_attempts()
    assert problems == []
    found = {(f"{record.point_id}.r{record.repeat}", attempt): record.outcome.status for attempt, record in attempts}
    assert found == {(keys[0], 1): "ok", (keys[1], 1): "interrupted", (keys[1], 2): "ok", (keys[2], 1): "ok"}
    rows = (sweep.folder.path / "tables" / "launches.csv").read_text().splitlines()
    assert len(rows) == 1 + 3, "each launch once"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("launcher", ["gloo", "mpi", "mpirun"])
def test_a_killed_launcher_takes_everything_along(launcher: str, tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path, launcher=launcher)
    os.kill(sweep.process.pid, signal.SIGKILL)
    sweep.wait()
    sweep.wait_for_nobody()
    records = read_outcomes(sweep.folder)
    assert records[keys[0]].outcome.status == "ok"
    if launcher != "gloo":  # where horovodrun's own helpers end the ranks at once
        assert (records[keys[1]].outcome.status, records[keys[1]].outcome.message) == (
            "interrupted",
            "the launcher is gone",
        )


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_rank_0_takes_everything_along(tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path)
    os.kill(sweep.process.pid, signal.SIGKILL)
    sweep.wait()
    sweep.wait_for_nobody()
    assert read_outcomes(sweep.folder)[keys[0]].outcome.status == "ok"


@pytest.mark.slow
@pytest.mark.long
def test_workers_that_never_start_end_the_sweep_after_three_tries(tmp_path: Path) -> None:
    text = suite_text(2, frameworks=("pytorch",))
    code, output = run_sweep(text, tmp_path, faults=[{"kind": "raise", "rank": 1, "phase": "start"}])
    assert code == 5
    line = next(line for line in output.splitlines() if line.startswith("hvbench:"))
    assert line.startswith(
        "hvbench: pytorch workers failed to start 3 times in a row: rank 1: RuntimeError: a fault on purpose in start (log: "
    )
    assert "Traceback" not in output
    records = read_outcomes(RunFolder(tmp_path / "run"))
    assert set(records) == {job.key for job in plan_jobs(text)}, "no point is left without a reason"
    for record in records.values():
        assert (record.outcome.status, record.outcome.phase, record.outcome.rank) == ("failed", "start", 1)
    assert len(list((tmp_path / "run" / "logs").glob("generation*-rank1.log"))) == 3


@pytest.mark.slow
def test_kill_9_of_the_whole_tree_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Just after the first record, and 7 s into what goes on from there: instants that no sweep ends before."""
    outcome = kill_and_resume(tmp_path, kills=2, points=2, launcher="alone", chance=random.Random(42))
    assert outcome.is_complete, outcome
