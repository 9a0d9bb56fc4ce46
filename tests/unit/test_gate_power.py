"""The study of the gate: what it draws, that the gate itself decides, and that the guide shows what it found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gate_power as program
from benchmarks.recorded_pairs import Recorded, count_recorded, has_equal_arms, keep_recorded, read_recorded
from benchmarks.simulated_suites import MEMORY, NOISES, judge_suite
from hvbench.analysis.frame.metrics import STEP
from hvbench.comparison.gate.rule import CALLS
from hvbench.errors import UsageError

ROOT = Path(__file__).parents[2]
CONTENT = json.loads((ROOT / "docs" / "images" / "gate_power.json").read_text())


def recorded(*, slowdown: float, name: str, b: str = "nothing", points: int = 8) -> Recorded:
    random = np.random.default_rng(7)
    steps = [list(random.normal(math.log1p(slowdown), 0.02, 18)) for _ in range(points)]
    rows = [{STEP: each, MEMORY: [0.0, 1e-4] * 9} for each in steps]
    return Recorded(name=name, b=b, points=rows, timings=[STEP], controls={"a fixed numpy kernel": [0.001, -0.001] * 9})


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("slowdown", [0.0, 0.05])
def test_rates_are_those_of_the_gate_and_add_up(points: int, slowdown: float) -> None:
    suites = program.make_suites(np.random.default_rng(0), points=points, decisions=60, spread=0.05)
    row = program.decide(program.slow_down(suites, slowdown, points=1))
    assert sum(row[call] for call in CALLS) == pytest.approx(1.0)
    assert all(row[f"{call}_low"] <= row[call] <= row[f"{call}_high"] for call in CALLS)


def test_a_study_whose_rates_are_not_the_gates_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    suites = program.make_suites(np.random.default_rng(0), points=1, decisions=6, spread=0.001)
    monkeypatch.setattr(program, "verdicts_one_by_one", lambda values, count: [("regression", 6)] * count)
    with pytest.raises(AssertionError):
        program.decide(suites)


def test_a_drawn_suite_is_of_recorded_pairs_with_a_sign_that_its_points_share() -> None:
    run = recorded(slowdown=0.0, name="aa", points=5)
    drawn = program.draw_recorded(run, np.random.default_rng(0), points=3, decisions=50)
    assert drawn[STEP].shape == drawn[MEMORY].shape == (50, 3, 18)
    known = np.array([point[STEP] for point in run.points])
    for suite in drawn[STEP]:
        places = [tuple(np.argwhere(np.isclose(np.abs(known), abs(value)))[0]) for value in suite.ravel()]
        rows = np.array(places).reshape(3, 18, 2)
        assert (rows[:, :, 0] == rows[:, :1, 0]).all() and len(set(rows[:, 0, 0])) == 3
        assert all(set(row) == set(range(18)) for row in rows[:, :, 1].tolist())
        signs = np.sign(suite) * np.sign(known[rows[..., 0], rows[..., 1]])
        assert (signs == signs[0]).all()


@pytest.mark.parametrize("noise", NOISES)
def test_noise_has_a_standard_deviation_of_about_one_and_no_mean(noise: str) -> None:
    values = NOISES[noise](np.random.default_rng(1), (2000, 8))
    assert values.shape == (2000, 8, 18) and abs(values.mean()) < 0.02 and 0.8 < values.std() < 1.6


def test_the_guide_shows_what_the_study_found() -> None:
    guide = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    for mark, table in program.describe(CONTENT).items():
        assert f"<!-- {mark}, from docs/images/gate_power.json -->\n{table}\n<!-- end -->" in guide, mark


def test_what_is_published_keeps_what_the_gate_promises() -> None:
    """Eight points at a spread of 5 %, and false regressions of every kind of suite (0.5 % are three standard errors)."""
    at_five = CONTENT["spreads"]["5 %"]
    equal, slower = (program.at(at_five, slowdown) for slowdown in (0.0, 0.05))
    assert equal["decisions"] == 10_000
    assert equal["pass_low"] >= 0.80 and slower["regression_low"] >= 0.80 and slower["pass"] <= 0.025
    assert all(program.at(rows, 0.0)["regression"] <= 0.025 for rows in CONTENT["spreads"].values())
    assert max(rate for found in CONTENT["noises"].values() for rate in found.values()) <= 0.03


def test_the_verdicts_on_recorded_pairs_are_those_of_the_published_pairs() -> None:
    folder = ROOT / "results" / "reference" / "gate"
    for row in CONTENT["recorded"]:
        if row["suite"].startswith("all "):
            run = read_recorded(folder / f"{row['run']}.json")
            rows = {name: np.array([point[name] for point in run.points]) for name in run.points[0]}
            judgement = judge_suite(rows, controls=run.controls)
            assert row[str(judgement.verdict)] == 1.0 and row["mean_pairs"] == judgement.launches, row["run"]


def test_the_guide_gets_its_tables_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "guide.md"
    page.write_text("before\n<!-- one, from docs/images/gate_power.json -->\nold\n<!-- end -->\nafter\n")
    program.rewrite_guide(page, {"one": "| new |"})
    assert page.read_text() == page.read_text().replace("old", "new") and "| new |\n<!-- end -->" in page.read_text()
    with pytest.raises(ValueError, match="no <!-- two"):
        program.rewrite_guide(page, {"two": "| new |"})


def test_recorded_verdicts_are_counted_by_run_and_suite() -> None:
    rows = count_recorded([recorded(slowdown=0.0, name="aa"), recorded(slowdown=0.1, name="slow", b="a delay")])
    whole, alone, slow_whole, slow_alone = rows
    assert (whole["suite"], whole["decisions"], whole["pass"]) == ("all 8 points", 1, 1.0)
    assert (alone["suite"], alone["decisions"], alone["pass"]) == ("each point alone", 8, 1.0)
    assert (slow_whole["regression"], slow_whole["mean_pairs"], slow_alone["regression"]) == (1.0, 6.0, 1.0)
    assert slow_whole["b"] == "a delay" and whole["spread"] == pytest.approx(0.02, rel=0.2)


def test_a_machine_that_moved_decides_nothing_about_time() -> None:
    run = recorded(slowdown=0.1, name="moved")
    rows = {name: np.array([point[name] for point in run.points]) for name in run.points[0]}
    judgement = judge_suite(rows, controls={"a fixed numpy kernel": [0.05, 0.051] * 9})
    assert (judgement.exit_code, judgement.launches) == (3, 18)
    assert all("the machine moved" in check.text for check in judgement.of("inconclusive"))


def test_kept_pairs_are_read_back(tmp_path: Path) -> None:
    run = recorded(slowdown=0.05, name="kept")
    keep_recorded(run, tmp_path)
    again = read_recorded(tmp_path / "kept.json")
    assert count_recorded([again]) == [
        row | {"spread": pytest.approx(row["spread"], rel=1e-4)} for row in count_recorded([run])
    ]
    assert again.points[0][STEP] == pytest.approx(run.points[0][STEP], abs=1e-7)
    with pytest.raises(UsageError, match="not recorded pairs"):
        read_recorded(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"python": "/other/bin/python"},
        {"revision": "v1"},
        {"overrides": ["seed=1"]},
        {"variables": {"OMP_NUM_THREADS": "2"}},
    ],
)
def test_only_arms_that_do_the_same_count_as_equal(change: dict) -> None:
    plain = {"description": "as it is", "python": None, "revision": None, "variables": {}, "overrides": []}
    named = plain | {"description": "HVBENCH_STUDY=2", "variables": {"HVBENCH_STUDY": "2"}}
    assert has_equal_arms({"a": plain, "b": named})
    assert not has_equal_arms({"a": plain, "b": named | change})
