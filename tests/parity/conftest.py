"""What the parity tests share: one launch that traces every point, and one process for each twin alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity.run import TracedPoint, read_trace, trace_points
from hvbench.parity.trace import Trace
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.parity.points import STEPS, WORLD_SIZES, all_points

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[Point, TracedPoint]:
    """Every point's trace on every rank, from real workers: one generation for each twin and world size."""
    run_path = tmp_path_factory.mktemp("run")
    (run_path / "logs").mkdir()
    with open_launch(resolve_context(max(WORLD_SIZES)), run_path=run_path) as coordinator:
        traced = trace_points(coordinator, all_points(), steps=STEPS)
    failures = {point.point_id: each.failure for point, each in traced.items() if each.failure}
    assert not failures
    return traced


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Trace]:
    """(framework, file) -> what `alone.py` recorded of each twin."""
    folders = {framework: tmp_path_factory.mktemp(framework) for framework in FRAMEWORKS}
    processes = {
        framework: subprocess.Popen(
            [sys.executable, "-m", "tests.parity.alone", framework, str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for framework, folder in folders.items()
    }
    outputs = {framework: process.communicate()[0] for framework, process in processes.items()}
    for framework, process in processes.items():
        assert process.returncode == 0, outputs[framework][-4000:]
    return {
        (framework, path.stem): read_trace(path)
        for framework, folder in folders.items()
        for path in folder.glob("*.npz")
    }
