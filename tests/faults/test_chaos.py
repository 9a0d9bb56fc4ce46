"""Short chaos runs under horovodrun with Gloo and under mpirun, which is what horovodrun starts with MPI; `python -m tests.faults.chaos` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.chaos import run_chaos

# launcher, points, kinds of faults, seconds that a point may take: generous where nothing hangs
SHORT = [("gloo", 6, ["kill", "oom"], 300.0), ("mpirun", 6, ["hang", "garbage"], 40.0)]
LONG = [
    ("gloo", 12, ["kill", "oom", "raise", "exit"], 300.0),
    ("alone", 12, ["hang", "hang-gil", "hang-allreduce", "garbage"], 60.0),
    ("mpi", 6, ["kill", "oom"], 300.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "points", "kinds", "timeout"),
    [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)],
)
def test_no_bad_point_costs_another(
    launcher: str, points: int, kinds: list[str], timeout: float, tmp_path: Path
) -> None:
    chaos = run_chaos(tmp_path, points=points, kinds=kinds, launcher=launcher, timeout=timeout, chance=random.Random(4))
    assert chaos.mistakes == [], chaos.output
    assert chaos.exit_code == 1
    assert {fault["kind"] for fault in chaos.faults.values()} == set(kinds)
    assert {key.partition("-")[0] for key in chaos.faults} == {"pytorch", "tensorflow"}
