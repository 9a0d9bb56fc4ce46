"""Checkpoints of real sweeps on two ranks: each twin goes on from its own and from the other's, as if never interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hvbench.parity.norms import relative_error
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.training.weights import parameter_shapes
from tests.parity.points import small_tolerances

SCRIPTS = Path(sys.executable).parent
HALF, STEPS = 5, 10

SUITE = """
question = "Does it go on?"
[point]
model = "tiny"
micro_batch_size = 4
gradient_accumulation_steps = 2
lr_warmup_steps = 3
schedule_steps = 12
{more}
[axes]
framework = ["pytorch", "tensorflow"]
{axes}
[measure]
warmup_steps = 1
steps = {steps}
checkpoint_every = {every}
ceilings = false
"""

pytestmark = pytest.mark.slow


def sweep(folder: Path, name: str, **values: object) -> dict[tuple[str, str | None], Record]:
    """(framework, initial checkpoint) -> record of a sweep of SUITE on two ranks."""
    (folder / f"{name}.toml").write_text(SUITE.format(**{"more": "", "axes": "", "every": 0} | values))
    words = ["hvbench", "sweep", f"{name}.toml", "--np", "2", "--out", name, "--no-parity", "--no-report"]
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    records, problems = RunFolder(folder / name).read_records()
    assert problems == [] and {record.outcome.status for record in records} == {"ok"}
    return {(record.point.framework, record.point.initial_checkpoint): record for record in records}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Record]:
    """Framework -> the uninterrupted training, which leaves a checkpoint half way and one at its end."""
    return {framework: record for (framework, _), record in sweep(folder, "whole", steps=STEPS - 1, every=HALF).items()}


@pytest.fixture(scope="module")
def resumed(folder: Path, whole: dict[str, Record]) -> dict[tuple[str, str], Record]:
    """(framework, framework that began) -> the second half, from the checkpoint half way."""
    paths = {
        framework: f"whole/checkpoints/{record.point_id}.r0/step-{HALF:07d}.safetensors"
        for framework, record in whole.items()
    }
    records = sweep(
        folder, "resumed", steps=STEPS - HALF - 1, axes=f"initial_checkpoint = {list(paths.values())}", every=HALF
    )
    began = {path: framework for framework, path in paths.items()}
    return {(framework, began[path]): record for (framework, path), record in records.items()}


def losses(record: Record) -> np.ndarray:
    return np.array([rank.loss for rank in record.ranks])


def final_checkpoint(folder: Path, record: Record) -> dict[str, np.ndarray]:
    return load_file(folder / record.suite / "checkpoints" / f"{record.point_id}.r0" / f"step-{STEPS:07d}.safetensors")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_going_on_is_bit_for_bit_what_was_never_interrupted(folder, whole, resumed, framework: str) -> None:
    record = resumed[framework, framework]
    assert {rank.first_step for rank in record.ranks} == {HALF}
    assert np.array_equal(losses(record), losses(whole[framework])[:, HALF:])
    for name in ("gradient_norm", "learning_rate"):
        assert [getattr(rank, name) for rank in record.ranks] == [
            getattr(rank, name)[HALF:] for rank in whole[framework].ranks
        ]
    left, right = (final_checkpoint(folder, each) for each in (record, whole[framework]))
    assert left.keys() == right.keys()
    assert all(np.array_equal(left[name], right[name]) for name in left), "parameters and moments after the last step"


@pytest.mark.parametrize(("framework", "began"), [FRAMEWORKS, FRAMEWORKS[::-1]])
def test_a_twin_goes_on_with_what_the_other_began(whole, resumed, framework: str, began: str) -> None:
    ended = losses(resumed[framework, began])
    tolerance = small_tolerances("fp32", "none").loss
    for source in FRAMEWORKS:  # as the one would have gone on, and as the other trained from the start
        assert relative_error(ended, losses(whole[source])[:, HALF:]) <= tolerance, source


def test_a_checkpoint_has_the_canonical_names_and_nothing_of_a_framework(folder, whole) -> None:
    files = {framework: final_checkpoint(folder, record) for framework, record in whole.items()}
    shapes = parameter_shapes(whole["pytorch"].point)
    kinds = ("parameters", "optimizer/first_moments", "optimizer/second_moments")
    expected = {f"{kind}/{name}": shape for kind in kinds for name, shape in shapes.items()} | {
        "optimizer/updates": (),
        "passes": (),
    }
    for arrays in files.values():
        assert {name: value.shape for name, value in arrays.items()} == expected
        assert int(arrays["optimizer/updates"]) == STEPS and int(arrays["passes"]) == 2 * STEPS
    for name in expected:
        assert files["pytorch"][name].dtype == files["tensorflow"][name].dtype
        if name.startswith("optimizer/second_moments") and not name.endswith("qkv.bias"):
            assert relative_error(files["pytorch"][name], files["tensorflow"][name]) < 1e-5, name
