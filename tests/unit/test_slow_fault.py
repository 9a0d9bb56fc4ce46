"""Faults that act in steps: `slow` makes one longer by the share that was asked for, `clock` notes when it ended; it is the same step."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hvbench.worker.faults import VARIABLE, disturb, inject, load_faults


class Trainer:
    """Stands where a twin's trainer would; its step takes 2 s of a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def train_step(self, inputs: str, *, learning_rate: float) -> str:
        self.now += 2.0
        return f"{inputs} at {learning_rate}"

    def parameters(self) -> str:
        return "parameters"


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ({"kind": "slow", "share": 0.05}, 0.1),
        ({"kind": "slow", "share": 0.5, "rank": 1, "point": "tiny"}, 1.0),
        ({"kind": "slow", "share": 0.5, "point": "gpt2"}, None),
        ({"kind": "slow", "share": 0.5, "rank": 0}, None),
    ],
)
def test_a_step_takes_longer_in_proportion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: dict, seconds: float | None
) -> None:
    trainer = Trainer()

    def tick() -> float:
        trainer.now += 1e-3
        return trainer.now

    monkeypatch.setattr(time, "perf_counter", tick)
    monkeypatch.setenv(VARIABLE, json.dumps([fault]))
    faults = load_faults(1)
    slowed = disturb(trainer, faults, point="pytorch-tiny-b4")
    assert slowed.train_step("inputs", learning_rate=0.1) == "inputs at 0.1"
    assert slowed.parameters() == "parameters"
    assert trainer.now == pytest.approx(2.0 + (seconds or 0.0), abs=5e-3)
    inject(faults, {"phase": "measure", "point": "pytorch-tiny-b4"}, directory=tmp_path)  # nothing happens at a phase
    assert (slowed is trainer) == (seconds is None)


def test_a_watched_step_leaves_when_it_began_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = Trainer()
    trainer.close = lambda: None
    monkeypatch.setattr(time, "monotonic", lambda: trainer.now)
    watched = disturb(trainer, [{"kind": "clock", "folder": str(tmp_path)}], point="pytorch-tiny-b4")
    assert [watched.train_step("inputs", learning_rate=0.1) for _ in range(3)] == ["inputs at 0.1"] * 3
    assert watched.parameters() == "parameters" and list(tmp_path.iterdir()) == []
    watched.close()
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("pytorch-tiny-b4.") and json.loads(path.read_text()) == [
        [0.0, 2.0],
        [2.0, 4.0],
        [4.0, 6.0],
    ]
