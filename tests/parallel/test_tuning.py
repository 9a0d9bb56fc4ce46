"""`hvbench tune` with real launches: proposals, pairs, and a record of each."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from hvbench.records.store import RunFolder
from hvbench.sweep.tune import CHOICES, LEAST_TRIALS
from tests.parallel.test_launchers import launch


@pytest.mark.slow
def test_a_slow_cycle_is_tuned_and_every_launch_leaves_a_record(tmp_path: Path) -> None:
    point = ["framework=pytorch", "model=tiny", "data=synthetic", "cycle_time_seconds=0.01"]
    settings = ["steps=3", "warmup_steps=1", "ceilings=false"]
    words = [
        "hvbench",
        "tune",
        *point,
        *settings,
        "--knob",
        "cycle_time_seconds",
        "--np",
        "2",
        "--budget",
        "1s",
        "--pairs",
        "1",
        "--out",
        "run",
    ]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and {record.outcome.status for record in records} == {"ok"}
    launches = Counter(record.point.cycle_time_seconds for record in records)
    assert launches.keys() <= set(CHOICES["cycle_time_seconds"]) and launches[0.01] >= 1, "the point itself comes first"
    assert min(records, key=lambda record: record.started_at).point.cycle_time_seconds == 0.01
    found = re.search(r"^cycle_time_seconds=(\S+)\n(.*)\nrecords: run$", done.stdout.strip(), re.MULTILINE)
    assert found, done.stdout
    if found[1] == "0.01":
        assert found[2] == "nothing was found that beats the default" and len(records) == LEAST_TRIALS
    else:
        assert "n = 1 pairs" in found[2] and len(records) == LEAST_TRIALS + 2
        assert launches[None if found[1] == "default" else float(found[1])] >= 2
