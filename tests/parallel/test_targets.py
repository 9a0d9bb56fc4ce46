"""A real sweep to a target on two ranks: both twins stop at the same step, and what they leave says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import evaluation_frame, point_frame
from hvbench.analysis.topics.batch.noise import read_looks
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from tests.environments import make_environment

SCRIPTS = Path(sys.executable).parent

SUITE = """
question = "How far is it?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 4
gradient_accumulation_steps = 2
learning_rate = 1e-2
lr_warmup_steps = 2
[axes]
framework = ["pytorch", "tensorflow"]
[measure]
warmup_steps = 1
steps = 40
evaluate_every = 2
evaluate_samples = 13
target_loss = 5.0
stop_at_target = true
patience = 5
noise_every = 2
ceilings = false
"""


@pytest.mark.slow
def test_both_twins_stop_at_the_target_and_measure_the_same_noise(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    own = make_environment(tmp_path / "own")  # of TensorFlow's workers
    words = ["hvbench", "sweep", "suite.toml", "--np", "2", "--out", "run", "--no-parity", "--env", f"tensorflow={own}"]
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and [record.point.framework for record in records] == list(FRAMEWORKS)
    assert [record.environment.get("python_environment") for record in records] == [None, str(own)]
    points, evaluations = point_frame(records), evaluation_frame(records)
    assert points["status"].tolist() == ["ok", "ok"]
    assert points["target"].tolist() == ["reached"] * 2 and points["stopped_by"].tolist() == ["target"] * 2
    steps = points["steps_to_target"].tolist()
    assert steps[0] == steps[1] and 2 <= steps[0] < 41, "the same losses stop both at the same step"
    for _, seen in evaluations.groupby("launch"):
        assert (seen["validation_loss"].to_numpy()[:-1] > 5.0).all() and seen["validation_loss"].iloc[-1] <= 5.0
    assert set(evaluations["samples"]) == {13}, "each once: the ranks' shares do not fill their micro-batches"
    first, second = (seen["validation_loss"].to_numpy() for _, seen in evaluations.groupby("launch"))
    assert first == pytest.approx(second, rel=1e-4)
    for record in records:
        assert all(len(rank.step_seconds) == steps[0] for rank in record.ranks), "not a step beyond it"
        looks = [[look.step for look in rank.gradient_noise] for rank in record.ranks]
        assert looks[0] == looks[1] == list(range(0, steps[0], 2))
        assert all(len(look.micro_gradient_norms) == 2 for rank in record.ranks for look in rank.gradient_noise)
        clock = max(sum(rank.step_seconds) for rank in record.ranks)
        paused = sum(each.seconds for each in record.ranks[0].evaluations[1:]) + sum(
            each.seconds for each in record.ranks[0].gradient_noise
        )
        reached = points.loc[points["point_id"] == record.point_id, "seconds_to_target"].item()
        assert clock <= reached < clock + paused, "neither evaluations nor looks at the noise are on the clock"
    a, b = (read_looks(record) for record in records)
    assert a.noise == pytest.approx(b.noise, rel=1e-4) and a.noise.size == len(range(0, steps[0], 2))
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## Gradient noise scale" in report
