"""A metric over runs: where it changed, and that noise is no change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.history_power import LINES, describe, rate_of_alarms, rate_of_finds
from hvbench.cli import run as run_command_line
from hvbench.comparison.changes import find_changes
from tests.unit.test_baseline import keep
from tests.unit.test_compare import launches

ROOT = Path(__file__).parents[2]


def test_a_step_is_found_where_it_is() -> None:
    random = np.random.default_rng(0)
    values = np.exp(random.normal(0, 0.01, 20)) * np.where(np.arange(20) < 12, 1.0, 1.06)
    assert find_changes(values) == [12]


def test_two_steps_are_found() -> None:
    values = [1.0, 1.01, 0.99, 1.0, 1.2, 1.21, 1.19, 1.2, 1.0, 1.01, 1.0, 0.99]
    assert find_changes(values) == [4, 8]


@pytest.mark.parametrize("kind", LINES)
def test_a_line_without_a_step_rarely_shows_one(kind: str) -> None:
    """120 lines: 8 % and three standard errors are 15 %; the published rates are of 1,000 lines. Independent noise alone would give 22 to 49 %."""
    assert rate_of_alarms(LINES[kind], lines=120, runs=12, seed=3) <= 0.15


@pytest.mark.parametrize("kind", ["white noise", "autoregressive, 0.5", "random walk"])
def test_a_step_of_ten_standard_deviations_is_found(kind: str) -> None:
    assert rate_of_finds(LINES[kind], lines=25, runs=12, step=10.0, seed=4) >= 0.9


def test_the_published_rates_are_in_the_guide_and_as_it_says() -> None:
    found = json.loads((ROOT / "docs" / "images" / "history_power.json").read_text())
    guide = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert f"<!-- history, from docs/images/history_power.json -->\n{describe(found)}\n<!-- end -->" in guide
    assert found.keys() == LINES.keys()
    assert max(share for row in found.values() for name, share in row.items() if "SD" not in name) <= 0.08


# What is below the resolution is none, with and without noise


@pytest.mark.parametrize(
    ("values", "resolution", "changes"),
    [
        ([500e6] * 6 + [500e6 + 4096] * 2, 0.0, []),  # one page
        ([500e6] * 6 + [500e6 + 3 * 4096] * 6, 0.0, []),
        ([500e6, 500e6 + 4096] * 4 + [500e6 + 8192] * 4, 0.0, []),
        ([500e6] * 6 + [500e6 + 2**21] * 6, 2.0**21, []),  # one huge page, as peak memory has it
        ([500e6] * 6 + [560e6] * 6, 2.0**21, [6]),
        ([0.0102] * 6 + [0.0103] * 6, 0.0, []),  # one tick of a clock of 0.1 ms
        ([0.0102] * 6 + [0.0112] * 6, 0.0, [6]),
        ([1.0] * 6 + [1.2] * 6, 0.0, [6]),
        ([1.0] * 6 + [1.2] * 6, 0.25, []),
        ([1.0] * 12, 0.0, []),
        ([1.0] * 11 + [1.3], 0.0, []),  # one run alone is an outlier
    ],
)
def test_a_change_of_the_resolution_is_none(values: list[float], resolution: float, changes: list[int]) -> None:
    assert find_changes(values, resolution=resolution) == changes


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
