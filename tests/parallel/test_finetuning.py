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
evaluate_every = 4
evaluate_samples = 32
ceilings = false
"""


@pytest.mark.slow
def test_both_twins_start_from_what_the_suite_has_pretrained(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    words = ["hvbench", "sweep", "suite.toml", "--np", "2", "--out", "run", "--no-parity"]
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
        assert losses[0] == pytest.approx(losses[1], rel=2e-5), "six steps of pretraining and eight of tuning later"
    kept = sorted(
        path.relative_to(tmp_path / "run").parts for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors")
    )
    assert [(parts[1], parts[-1]) for parts in kept] == [("pretraining", "step-0000006.safetensors")] * 2
    assert "accuracy" in (tmp_path / "run" / "report.md").read_text()
