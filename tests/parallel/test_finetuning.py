"""A real sweep that pretrains, keeps the checkpoint, and goes on from it as a classifier, in both twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.analysis.frame.samples import evaluations_of
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from tests.parallel.test_launchers import launch

SUITE = """
question = "Does pretraining help?"
[point]
model = "tiny"
num_layers = 1
objective = "classification"
micro_batch_size = 8
pretraining_steps = 6
learning_rate = 3e-3
[axes]
framework = ["pytorch", "tensorflow"]
pretraining = ["none", "masked_lm"]
[measure]
warmup_steps = 1
steps = 7
evaluate_every = 5
evaluate_samples = 27
ceilings = false
"""


@pytest.mark.slow
def test_both_twins_start_from_one_pretrained_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    words = ["hvbench", "sweep", "suite.toml", "--np", "2", "--out", "run"]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and len(records) == 4
    by_point = {(record.point.framework, record.point.pretraining): record for record in records}
    for framework in FRAMEWORKS:
        fresh, tuned = (by_point[framework, pretraining] for pretraining in ("none", "masked_lm"))
        assert fresh.ranks[0].loss[0] != tuned.ranks[0].loss[0], "other weights, the same samples"
        assert all(0 <= one.accuracy <= 1 for record in (fresh, tuned) for one in evaluations_of(record))
    for pretraining in ("none", "masked_lm"):
        losses = [by_point[framework, pretraining].ranks[1].loss for framework in FRAMEWORKS]
        assert losses[0] == pytest.approx(losses[1], rel=2e-5), "over eight steps of tuning, from the same weights"
        first = [by_point[framework, pretraining].ranks[1].loss[0] for framework in FRAMEWORKS]
        assert first[0] == pytest.approx(first[1], rel=1e-6), "nothing was amplified before the first measured step"
        seen = [evaluations_of(by_point[framework, pretraining]) for framework in FRAMEWORKS]
        assert [[(one.step, one.samples) for one in each] for each in seen] == [[(0, 27), (5, 27), (8, 27)]] * 2
    kept = sorted(
        path.relative_to(tmp_path / "run").parts for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors")
    )
    assert [(parts[1], parts[-1]) for parts in kept] == [("pretraining", "step-0000006.safetensors")], "one for both"
    ((name, start),) = RunFolder(tmp_path / "run").read_run()["pretraining"].items()
    assert kept[0][2] == name and (start["framework"], start["steps"], start["seed"]) == ("pytorch", 6, 0)
    for (_, pretraining), record in by_point.items():
        assert record.environment.get("pretraining") == (start if pretraining == "masked_lm" else None)
        assert record.parity.is_proven
        assert record.parity.start == (start["digest"] if pretraining == "masked_lm" else None)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "accuracy" in report and "NOT proven" not in report
