"""What the parity tests share: traces of every point from real workers, and what either twin computes by itself.

Both are made in parts, once for all processes of a run (`tests/once.py`): traces by the workers that points can share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity.run import TracedPoint, launched_as, read_trace, run_traces
from hvbench.parity.trace import Trace, trace_name
from hvbench.plan.jobs import worker_group
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from tests.once import MadeOnce, run_folder
from tests.parity.points import STEPS, WORLD_SIZES, all_points

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Workers have one thread each, those of one rank as well, which would have as many as there are cores.

    Beside another busy process two threads wait for each other in a loop: a trace of PyTorch took 8 s of processor time,
    with one thread 0.3 s.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


class TracedPoints:
    """Point -> its trace on every rank, traced when a test first asks for a point of the same workers."""

    def __init__(self, root: Path, points: Sequence[Point]) -> None:
        groups: dict[tuple, list[Point]] = {}
        for point in points:
            groups.setdefault(worker_group(launched_as(point)), []).append(point)
        parts = {f"{group[0]}-{group[1]}-{number}": points for number, (group, points) in enumerate(groups.items())}
        longest_first = sorted(
            parts, key=lambda name: len(parts[name]) * estimated_seconds(parts[name][0]), reverse=True
        )
        self.part_of = {point: name for name, points in parts.items() for point in points}
        self.folders = MadeOnce(root, {name: partial(trace, points=parts[name]) for name in longest_first})
        self.read: dict[Point, TracedPoint] = {}

    def __getitem__(self, point: Point) -> TracedPoint:
        if point not in self.read:
            folder = self.folders[self.part_of[point]]
            facts = json.loads((folder / f"{point.point_id}.json").read_text())
            paths = {rank: trace_path(folder, point, rank) for rank in range(point.world_size)}
            ranks = {rank: read_trace(path) for rank, path in paths.items()}
            self.read[point] = TracedPoint(point=point, ranks=ranks, failure=None, **facts)
        return self.read[point]


def trace(folder: Path, points: Sequence[Point]) -> None:
    """Trace points that share workers, and leave in `folder` what the workers left and their digests."""
    (folder / "logs").mkdir()
    failures = {}
    ranks = max(*WORLD_SIZES, points[0].world_size)
    with open_launch(resolve_context(ranks), run_path=folder) as coordinator:
        for traced in run_traces(coordinator, points, folder=str(folder), steps=STEPS):
            for arrays in traced.ranks.values():
                arrays.close()
            facts = {"digests": traced.digests, "is_native": traced.is_native}
            (folder / f"{traced.point.point_id}.json").write_text(json.dumps(facts))
            if traced.failure:
                failures[traced.point.point_id] = traced.failure
    if failures:  # an assertion's own words would be cut where they begin to explain
        logs = [f"{path.name}: {path.read_text()[-2000:]}" for path in sorted((folder / "logs").glob("*.log"))]
        raise RuntimeError("\n".join([f"{name}: {failure}" for name, failure in failures.items()] + logs))


def estimated_seconds(point: Point) -> float:
    """Of one trace, roughly: TensorFlow compiles its graphs anew for each point."""
    return point.world_size * (4.0 if point.framework == "tensorflow" else 1.0)


def trace_path(folder: Path, point: Point, rank: int) -> Path:
    return folder / f"{trace_name(point, None)}-rank{rank}.npz"


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> TracedPoints:
    """Every point's trace on every rank, from real workers: one generation for each twin and world size."""
    return TracedPoints(run_folder(tmp_path_factory) / "traced", all_points())


class Recorded:
    """(framework, file) -> what `alone.py` recorded of that twin."""

    def __init__(self, root: Path) -> None:
        self.folders = MadeOnce(root, {framework: partial(record, framework=framework) for framework in FRAMEWORKS})
        self.read: dict[tuple[str, str], Trace] = {}

    def __getitem__(self, key: tuple[str, str]) -> Trace:
        if key not in self.read:
            framework, file = key
            self.read[key] = read_trace(self.folders[framework] / f"{file}.npz")
        return self.read[key]


def record(folder: Path, framework: str) -> None:
    """Run `alone.py` for a framework."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity.alone", framework, str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """(framework, file) -> what `alone.py` recorded of each twin."""
    return Recorded(run_folder(tmp_path_factory) / "alone")
