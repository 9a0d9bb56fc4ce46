"""A user's sweep and a user's `hvbench parity` of a broken twin: red stamps in the records, a banner across the report.

The twin is broken by editing the source of a copy of the package, as a mistake in a change would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hvbench
from hvbench.records.store import RunFolder

# Two mistakes: each spoils one of the three configurations below and leaves the others alone.
MISTAKES = {
    "frameworks/tensorflow/optimizer.py": ("self.point.epsilon * correction2", "1e-6 * correction2"),
    "frameworks/tensorflow/step.py": (
        "scaled = loss * scale",
        "scaled = loss * scale * self.point.gradient_accumulation_steps",
    ),
}
SUITE = """
question = "Does anybody notice?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 2
data = "synthetic"
[axes]
framework = ["pytorch", "tensorflow"]
gradient_accumulation_steps = [1, 2]
epsilon = [1e-6, 1e-8]
[[exclude]]
gradient_accumulation_steps = 2
epsilon = 1e-8
[measure]
warmup_steps = 1
steps = 2
ceilings = false
"""
SOUND, WRONG_EPSILON, UNDIVIDED = (1, 1e-6), (1, 1e-8), (2, 1e-6)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package in which the TensorFlow twin is wrong."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(Path(hvbench.__file__).parent, folder / "hvbench")  # compiled files too: all processes start sooner
    for name, (right, wrong) in MISTAKES.items():
        source = (folder / "hvbench" / name).read_text()
        assert source.count(right) == 1
        (folder / "hvbench" / name).write_text(source.replace(right, wrong))
    (folder / "suite.toml").write_text(SUITE)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program, with the package that lies in `folder`."""
    return subprocess.run(
        [Path(sys.executable).with_name("hvbench"), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=550,
    )


@pytest.mark.slow
def test_a_sweep_with_a_broken_twin_is_stamped_and_says_so_across_its_report(broken: Path) -> None:
    done = run(broken, "sweep", "suite.toml", "--out", "run")
    assert done.returncode == 0, done.stderr  # every point trained; what it is worth, the report says
    assert "parity done: NOT proven for 2 of 3 configurations" in done.stderr
    records, problems = RunFolder(broken / "run").read_records()
    assert problems == [] and len(records) == 6
    for record in records:
        configuration = (record.point.gradient_accumulation_steps, record.point.epsilon)
        stamp = record.parity
        assert stamp.is_proven == (configuration == SOUND), (configuration, stamp)
        assert stamp.problem is None and stamp.updates == 20
        is_gradient_wrong = stamp.gradient_relative_error > stamp.gradient_tolerance
        assert is_gradient_wrong == (configuration == UNDIVIDED)
        if configuration == WRONG_EPSILON:
            assert stamp.update_relative_error > stamp.update_tolerance
    report = (broken / "run" / "report.md").read_text()
    banner = next(line for line in report.splitlines() if line.startswith(">"))
    assert report.index(banner) < report.index("## ")
    assert "NOT proven to do the same work" in banner and "2 of 3 configurations" in banner
    assert "accumulation 2" in banner and "epsilon 1e-08" in banner
    speeds = report[report.index("## Throughput") : report.index("## Convergence")]
    assert speeds.count("ok, NOT the same work") == 4
    assert "NOT proven to do the same work" in done.stdout


@pytest.mark.slow
def test_hvbench_parity_is_red_for_a_broken_twin(broken: Path) -> None:
    words = [
        "parity",
        "suite.toml",
        "gradient_accumulation_steps=1",
        "--steps",
        "2",
        "--full",
        "--json",
        "figures.json",
    ]
    done = run(broken, *words)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "hvbench: 1 of 2 configurations are not proven to be the same work"
    red = {each["configuration"]["epsilon"]: each for each in json.loads((broken / "figures.json").read_text())}
    assert red[1e-6]["is_proven"] and not red[1e-8]["is_proven"]
    outside = [each["name"] for each in red[1e-8]["deviations"] if not each["is_within"]]
    assert outside and all(name.startswith("rank0/") for name in outside)
    assert all(name in done.stdout for name in outside)
    assert not any("gradient/" in name or "logits" in name for name in outside)
