"""A real training on labelled texts, on two ranks: epochs, metrics over both, the best checkpoint, and the test split at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hvbench.analysis.frame.samples import evaluation_of_test, evaluations_of
from hvbench.records.store import RunFolder
from tests.parallel.test_launchers import launch
from tests.parity.points import LABELLED_FILE

SUITE = f"""
question = "Is it a class or a function?"
[point]
framework = "pytorch"
model = "tiny"
num_layers = 1
objective = "classification"
num_classes = 2
data = {json.dumps(str(LABELLED_FILE))}
micro_batch_size = 8
learning_rate = 0.03
lr_warmup_steps = 0
schedule = "plateau"
plateau_factor = 0.5
plateau_patience = 1
[measure]
warmup_steps = 1
epochs = 2.5
evaluate_every = 4
keep_best = true
ceilings = false
"""


@pytest.mark.slow
def test_epochs_metrics_the_best_checkpoint_and_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    done = launch(["hvbench", "sweep", "suite.toml", "--np", "2", "--no-parity", "--out", "run"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2.5 epochs of " in done.stdout + done.stderr
    (record,), problems = RunFolder(tmp_path / "run").read_records()
    ranks, evaluations = record.ranks, evaluations_of(record)
    assert problems == [] and len(ranks[0].loss) == record.measure.warmup_steps + record.measure.steps
    best = min((one for one in evaluations if one.step), key=lambda one: one.validation_loss)
    (kept,) = (tmp_path / "run" / "checkpoints").rglob("*.safetensors")
    assert kept.name == f"step-{best.step:07d}.safetensors", "and no other one is left"
    assert ranks[0].test.step == best.step
    for one in (best, evaluation_of_test(record)):
        counts = [rank.test if one is not best else find(rank.evaluations, best.step) for rank in ranks]
        hits, total = (
            sum(sum(getattr(each.label_counts, name)) for each in counts) for name in ("hits", "occurrences")
        )
        assert one.accuracy == pytest.approx(hits / total) and total == one.samples
        assert set(one.metrics) == {"precision", "recall", "f1", "f1_micro", "matthews"}
    losses = [one.validation_loss for one in evaluations]
    assert losses != sorted(losses, reverse=True), "or no rate would fall"
    rates = np.array(ranks[0].learning_rate)
    assert rates[0] == 0.03 and set(rates[1:] / rates[:-1]) == {1.0, 0.5}
    assert all(padding >= 0 for padding in ranks[0].step_padding_tokens) and any(ranks[0].step_padding_tokens)
    assert "Predictions of labels" in (tmp_path / "run" / "report.md").read_text()


def find(evaluations: list, step: int):
    return next(one for one in evaluations if one.step == step)
