"""`hvbench search` with real launches: a hopeless trial is ended early, its workers go on, and what was found is proven in pairs."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from hvbench.records.store import RunFolder
from tests.parallel.test_launchers import launch

STEPS = 600
FIXED = (
    "framework=pytorch", "model=tiny", "num_layers=1", "sequence_length=16", "micro_batch_size=4", "lr_warmup_steps=2", "schedule=constant",
    "straggler_seconds=0.02",  # long enough steps for a report and an answer within the training, without work
    f"steps={STEPS - 1}", "warmup_steps=1", "evaluate_every=5", "evaluate_samples=16", "target_loss=3.9",
)  # fmt: skip


@pytest.mark.slow
def test_a_hopeless_trial_is_ended_early_and_what_is_found_is_proven(tmp_path: Path) -> None:
    words = ["hvbench", "search", "--np", "2", "--goal", "seconds", "--budget", "30s", "--pairs", "2", "--out", "run"]
    words += [word for each in (*FIXED, "learning_rate=1e-7,1e-3,1e-2") for word in ("-s", each)]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == []
    trials = {record.point.learning_rate: record for record in records if record.repeat == 0}
    assert trials.keys() == {1e-7, 1e-3, 1e-2}
    hopeless = trials[1e-7]
    assert hopeless.outcome.status == "stopped" and not hopeless.is_measured
    steps = {len(rank.step_seconds) for rank in hopeless.ranks}
    assert len(steps) == 1 and steps.pop() < STEPS, "both ranks end after the same step"
    assert {rank.stopped_by for rank in hopeless.ranks} == {"search"}
    later = trials[1e-2]
    assert later.outcome.status == "ok" and later.generation == hopeless.generation, "the same workers go on"
    pairs = [record for record in records if record.repeat]
    assert {record.repeat for record in pairs} >= {1, 2} and {record.point.learning_rate for record in pairs} == {
        1e-3,
        1e-2,
    }
    assert {(record.outcome.status, record.in_turns) for record in pairs} == {("ok", True)}, "where the machine decides"
    assert done.stdout.startswith("learning_rate=0.01\nthe default takes ") and "ended early" in done.stdout
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["searched"] == {"goal": "seconds", "fields": {"learning_rate": [1e-7, 1e-3, 1e-2]}}
    assert kept["found"]["trials"] == 3 and len(kept["found"]["pairs"]) == len(pairs) / 2
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if str(tmp_path) in line]
