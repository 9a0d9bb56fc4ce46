"""Ctrl-C and SIGTERM, once and twice, under every launcher: the running point is marked, and nothing is left running."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.faults.sweeps import LAUNCHERS, RunningSweep, read_outcomes, start_and_hang, start_sweep, suite_text


def second_sweep_is_refused(first: RunningSweep, folder: Path) -> None:
    """Another sweep into the same folder ends at once, and names the first one's process and host."""
    code, output = start_sweep(suite_text(2, frameworks=("pytorch",)), folder, options=["--resume"]).wait()
    assert code == 5
    found = re.search(
        r'run: in use by "process (\d+) on ([^"]+)"; wait for it or choose another folder with --out', output
    )
    assert found and found[2] == socket.gethostname()
    assert first.mark in Path(f"/proc/{found[1]}/environ").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["alone", *(pytest.param(name, marks=pytest.mark.long) for name in LAUNCHERS if name != "alone")]
)
def test_ctrl_c_marks_the_running_point_reports_what_is_there_and_leaves_nothing(launcher: str, tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path, launcher=launcher)
    second_sweep_is_refused(sweep, tmp_path)
    sweep.press_ctrl_c()
    code, output = sweep.wait()
    assert code != 0
    if launcher == "alone":  # a launcher has an exit code of its own
        assert code == 130
        assert "stopped by SIGINT; what was measured is safe, go on with --resume" in output
    sweep.wait_for_nobody()
    records = read_outcomes(sweep.folder)
    assert {key: record.outcome.status for key, record in records.items()} == {keys[0]: "ok", keys[1]: "interrupted"}
    assert records[keys[1]].outcome.message == "stopped by SIGINT" or launcher != "alone"
    assert (sweep.folder.path / "report.md").is_file()
    assert (sweep.folder.path / "tables" / "throughput.csv").is_file()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_rank_0_ends_everything_too(name: str, tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path)
    os.kill(sweep.process.pid, getattr(signal, name))
    code, output = sweep.wait()
    assert code == 130 and f"stopped by {name}" in output
    sweep.wait_for_nobody()
    assert read_outcomes(sweep.folder)[keys[1]].outcome.status == "interrupted"


@pytest.mark.slow
@pytest.mark.long
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path)
    sweep.press_ctrl_c()
    time.sleep(0.05)
    sweep.press_ctrl_c()
    code, _ = sweep.wait()
    assert code == 130
    assert not (sweep.folder.path / "report.md").exists(), "which the first one alone would have waited for"
    sweep.wait_for_nobody()
    assert read_outcomes(sweep.folder)[keys[0]].outcome.status == "ok"
