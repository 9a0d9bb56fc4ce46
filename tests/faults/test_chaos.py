"""A short chaos run under self-launch and under Gloo; `python -m tests.faults.chaos` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.chaos import EXPECTED, run_chaos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "kinds"),
    [("alone", ["kill", "hang", "oom", "raise"]), ("gloo", ["exit", "hang-gil", "hang-allreduce", "garbage"])],
)
def test_no_bad_point_costs_another(launcher: str, kinds: list[str], tmp_path: Path) -> None:
    chaos = run_chaos(tmp_path, points=12, kinds=kinds, launcher=launcher, timeout=10.0, chance=random.Random(4))
    assert chaos.mistakes == [], chaos.output
    assert chaos.exit_code == 1
    assert {fault["kind"] for fault in chaos.faults.values()} == set(kinds) <= set(EXPECTED)
