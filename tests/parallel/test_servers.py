"""Trainings with several parameter servers: what they leave, how one goes on from it, how far ahead a rank may be, and a server that dies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.training.checkpoints import load_checkpoint
from hvbench.training.weights import parameter_shapes
from hvbench.worker.faults import VARIABLE
from tests.parallel.test_launchers import launch

HALF, STEPS = 3, 6
SUITE = """
question = "Does a served training go on?"
[point]
model = "tiny"
num_layers = 1
data = "synthetic"
servers = 2
optimizer = "lamb"
{more}
[axes]
micro_batch_size = {batches}
strategy = {strategies}
[measure]
warmup_steps = 1
steps = {steps}
checkpoint_every = {every}
ceilings = false
"""


def sweep(folder: Path, name: str, *, code: int = 0, **values: object) -> list[Record]:
    """The records of a sweep of SUITE on two ranks, in their order, which ends with that exit code."""
    (folder / f"{name}.toml").write_text(SUITE.format(**{"more": "", "batches": "[2]"} | values))
    done = launch(
        ["hvbench", "sweep", f"{name}.toml", "--np", "2", "--out", name, "--no-parity", "--no-report"], folder=folder
    )
    assert done.returncode == code, done.stdout + done.stderr
    records, problems = RunFolder(folder / name).read_records()
    assert problems == [] and (code or {record.outcome.status for record in records} == {"ok"})
    return sorted(records, key=lambda record: record.generation)


@pytest.mark.slow
def test_a_served_training_goes_on_from_its_checkpoint_bit_for_bit_and_another_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = "staleness_bound = 1\nstraggler_seconds = 0.05"
    (whole,) = sweep(tmp_path, "whole", steps=STEPS - 1, every=HALF, strategies='["parameter_server"]')
    # Behind the two ranks stand the servers: the second dies when the first point begins.
    monkeypatch.setenv(VARIABLE, json.dumps([{"kind": "kill", "rank": 3, "point": "-b1x1-", "phase": "serve"}]))
    killed, bound = sweep(
        tmp_path, "bound", code=1, steps=STEPS - 1, every=STEPS, strategies='["parameter_server_async"]', more=late, batches="[1, 2]"
    )  # fmt: skip
    half = tmp_path / "whole" / "checkpoints" / whole.key / f"step-{HALF:07d}.safetensors"
    (resumed,) = sweep(
        tmp_path, "resumed", steps=STEPS - HALF - 1, every=HALF, strategies='["parameter_server"]',
        more=f'initial_checkpoint = "{half}"',
    )  # fmt: skip
    for rank, before in zip(resumed.ranks, whole.ranks, strict=True):
        assert rank.first_step == HALF and rank.loss == before.loss[HALF:]
        assert rank.gradient_norm == before.gradient_norm[HALF:] and rank.staleness == [0] * (STEPS - HALF)
    left, right = (
        load_checkpoint(
            str(tmp_path / record.suite / "checkpoints" / record.key / f"step-{STEPS:07d}.safetensors"), record.point
        ).arrays
        for record in (resumed, whole)
    )
    kinds = ("parameters", "optimizer/first_moments", "optimizer/second_moments")
    names = {f"{kind}/{name}" for kind in kinds for name in parameter_shapes(whole.point)}
    assert left.keys() == right.keys() == names | {"optimizer/updates", "passes"} and left["optimizer/updates"] == STEPS
    assert all(np.array_equal(left[name], right[name]) for name in left), "what all servers have after the last step"

    assert (killed.outcome.status, killed.outcome.rank) == ("failed", 1), "the rank that it stood beside"
    assert killed.outcome.message == "parameter server 1: killed by SIGKILL" and bound.outcome.status == "ok"

    fast, slow = bound.ranks
    assert len(fast.staleness) == len(slow.staleness) == STEPS
    assert max(*fast.staleness, *slow.staleness) <= 2 * 1 + 1, "neither rank was more than one update ahead"
    assert sum(fast.exchange_wait_seconds) > sum(slow.exchange_wait_seconds), "the fast one waits for the slow one"
    asynchronous = load_checkpoint(
        str(tmp_path / "bound" / "checkpoints" / bound.key / f"step-{STEPS:07d}.safetensors"), bound.point
    ).arrays
    assert asynchronous["optimizer/updates"] == 2 * STEPS, "each push was an update"
