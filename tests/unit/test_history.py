"""A metric over runs: where it changed, and that noise is no change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hvbench.cli import run as run_command_line
from hvbench.comparison.history import find_changes
from tests.unit.test_baseline import keep
from tests.unit.test_compare import launches

pytest.importorskip("ruptures")


def test_a_step_is_found_where_it_is() -> None:
    random = np.random.default_rng(0)
    values = np.exp(random.normal(0, 0.01, 20)) * np.where(np.arange(20) < 12, 1.0, 1.06)
    assert find_changes(values) == [12]


def test_two_steps_are_found() -> None:
    values = [1.0, 1.01, 0.99, 1.0, 1.2, 1.21, 1.19, 1.2, 1.0, 1.01, 1.0, 0.99]
    assert find_changes(values) == [4, 8]


def test_noise_is_rarely_taken_for_a_step() -> None:
    random = np.random.default_rng(1)
    alarms = sum(bool(find_changes(np.exp(random.normal(0, 0.03, 20)))) for _ in range(100))
    assert alarms <= 12


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 1.0, 2.0, 5.0], [1.0] * 30])
def test_few_runs_and_a_flat_line_have_no_step(values: list[float]) -> None:
    assert find_changes(values) == []


def test_the_command_shows_every_run_and_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for key in os.environ:
        if key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_")):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        keep(
            f"2026010{number}",
            launches(repeats=3, seed=number, factor=1.0 if number < 5 else 1.2, environment={"cpu_model": "One"}),
        )
    keep("20260109", launches(repeats=3, factor=9.0, environment={"cpu_model": "Two"}))
    keep("20260108", launches(repeats=3, seed=9, factor=1.2, environment={"cpu_model": "One"}))
    assert run_command_line(("history", "--suite", "mine")) == 0
    out = capfd.readouterr().out
    assert out.startswith("step median of mine, 1 runs on ")  # the newest run's machine
    assert run_command_line(("history", "--suite", "mine", "--fingerprint", "0" * 12)) == 5
    fingerprints = capfd.readouterr().err.rpartition("there are ")[2].strip().split(", ")
    texts = []
    for fingerprint in fingerprints:
        assert (
            run_command_line(
                ("history", "step_seconds_median", "--suite", "mine", "--fingerprint", fingerprint, "--plot", "h")
            )
            == 0
        )
        texts.append(capfd.readouterr().out)
    (text,) = (text for text in texts if "9 runs" in text)
    (step,) = (line for line in text.splitlines() if "from here" in line)
    assert step.startswith("20260105") and step.endswith(" % from here")
    assert (tmp_path / "h.svg").stat().st_size > 1000 and (tmp_path / "h.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["history", "step_seconds"], 2, 'unknown metric "step_seconds" (did you mean '),
        (["history", "--suite", "nosuch"], 5, "no run of nosuch below results"),
        (["history", "--suite", "../x"], 2, "not the name of a suite"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(arguments) == code
    assert message in capfd.readouterr().err
