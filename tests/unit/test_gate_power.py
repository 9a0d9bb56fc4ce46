"""The study of the gate's error rates uses the gate's own decisions, and draws pairs as documented."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gate_power as program
from benchmarks.recorded_pairs import (
    Recorded,
    count_decisions,
    decide_recorded,
    has_equal_arms,
    keep_recorded,
    read_recorded,
)
from hvbench.errors import UsageError


def pairs(*, count: int, spread: float = 0.05, control: float = 0.0) -> program.Pairs:
    random = np.random.default_rng(count)
    controls = random.normal(0, 0.02, (1, count)) + control
    return program.Pairs(name="test", worse_by=random.normal(0, spread, count), controls=controls)


@pytest.mark.parametrize("count", [9, 18, 50])
@pytest.mark.parametrize("slowdown", [0.0, 0.05])
def test_all_decisions_at_once_are_those_of_the_gate(count: int, slowdown: float) -> None:
    drawn = program.draw(pairs(count=count), slowdown, decisions=200, random=np.random.default_rng(0))
    calls, used = program.decide_many(*drawn, margin=0.03)
    program.check(*drawn, calls, margin=0.03)
    assert set(used.tolist()) <= {6, 12, 18} and len(set(calls.tolist())) >= 2
    with pytest.raises(AssertionError):
        program.check(*drawn, (calls + 1) % 3, margin=0.03)


def test_a_drawn_pair_is_a_recorded_one_with_a_sign_and_its_own_control() -> None:
    recorded = pairs(count=20)
    worse_by, controls = program.draw(recorded, 0.05, decisions=50, random=np.random.default_rng(0))
    assert worse_by.shape == (50, 18) and controls.shape == (50, 1, 18)
    labelled = worse_by - math.log1p(0.05)
    place = np.abs(np.abs(labelled)[..., None] - np.abs(recorded.worse_by)).argmin(axis=2)
    assert np.allclose(np.abs(labelled), np.abs(recorded.worse_by)[place])
    assert all(len(set(row)) == 18 for row in place.tolist())  # without replacement, where there are enough
    signs = np.sign(labelled) * np.sign(recorded.worse_by[place])
    assert np.allclose(controls[:, 0], recorded.controls[0][place] * signs)


def test_rates_add_up_and_grow_with_the_slowdown() -> None:
    rows = program.study(program.make_normal(0.04, seed=0), decisions=300, margin=0.03, seed=0)
    assert all(sum(row[call] for call in program.CALLS) == pytest.approx(1.0) for row in rows)
    found = {row["slowdown"]: row["regression"] for row in rows}
    assert found[0.0] <= 0.05 and found[0.05] >= 0.8 and found[0.15] == 1.0


def test_the_level_of_a_look_keeps_the_error_at_two_and_a_half_percent() -> None:
    error = program.study_level(trials=200_000, seed=1)
    assert error["0.05"] > 0.04 and error["0.0221"] > 0.0255 and 0.0235 < error["0.0205"] < 0.0255


def test_the_figures_of_the_guide_are_those_of_the_study() -> None:
    root = Path(__file__).parents[2]
    content = json.loads((root / "docs" / "images" / "gate_power.json").read_text())
    guide = (root / "docs" / "ci.md").read_text(encoding="utf-8")
    assert program.describe_studies(content["studies"]) in guide
    assert program.describe_real(content["real"]) in guide
    for rows in content["studies"].values():
        at = {row["slowdown"]: row for row in rows}
        assert at[0.0]["decisions"] == 10_000 and at[0.0]["regression"] <= 0.025


def test_the_real_decisions_are_those_of_the_published_pairs() -> None:
    root = Path(__file__).parents[2]
    content = json.loads((root / "docs" / "images" / "gate_power.json").read_text())
    published = [read_recorded(path) for path in sorted((root / "results" / "reference" / "gate").glob("*.json"))]
    again = {(row["b"], row["in_turns"]): row for row in count_decisions(published, margin=content["margin"])}
    assert again.keys() == {(row["b"], row["in_turns"]) for row in content["real"]}
    for row in content["real"]:
        same = again[row["b"], row["in_turns"]]
        assert [same[call] for call in program.CALLS] == [row[call] for call in program.CALLS]


def test_the_guide_gets_its_tables_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "guide.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nafter\n")
    program.rewrite_guide(page, {"one": "| new |"})
    assert page.read_text() == "before\n<!-- one -->\n| new |\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="no <!-- two -->"):
        program.rewrite_guide(page, {"two": "| new |"})


def recorded(*, slowdown: float, name: str, b: str = "nothing") -> Recorded:
    random = np.random.default_rng(7)
    steps = [list(random.normal(math.log1p(slowdown), 0.02, 18)) for _ in range(8)]
    points = [{"step_seconds_median": each, "peak_rss_bytes": [0.0, 1e-4] * 9} for each in steps]
    controls = {"a fixed numpy kernel": [0.001, -0.001] * 9}
    return Recorded(name=name, b=b, points=points, timings=["step_seconds_median"], controls=controls)


def test_real_decisions_are_counted_by_what_arm_b_did() -> None:
    runs = [
        recorded(slowdown=0.0, name="aa"),
        recorded(slowdown=0.1, name="slow", b="a delay"),
        recorded(slowdown=0.0, name="ab"),
    ]
    nothing, delayed = count_decisions(runs, margin=0.03)
    assert (nothing["b"], nothing["runs"], nothing["decisions"], nothing["regression"], nothing["pass"]) == (
        "nothing",
        2,
        16,
        0,
        16,
    )
    assert (delayed["b"], delayed["decisions"], delayed["regression"], delayed["mean_pairs"]) == ("a delay", 8, 8, 6.0)
    assert delayed["regression_low"] < 1.0 == delayed["regression_high"]


def test_a_machine_that_moved_decides_nothing_about_time() -> None:
    run = recorded(slowdown=0.1, name="moved")
    moved = Recorded(**{**vars(run), "controls": {"a fixed numpy kernel": [0.05, 0.051] * 9}})
    decisions = decide_recorded(moved, margin=0.03)
    assert {each["call"] for each in decisions} == {"inconclusive"} and {each["pairs"] for each in decisions} == {18}
    assert all("the machine moved" in reason for each in decisions for reason in each["reasons"])


def test_kept_pairs_are_read_back(tmp_path: Path) -> None:
    run = recorded(slowdown=0.05, name="kept")
    keep_recorded(run, tmp_path)
    again = read_recorded(tmp_path / "kept.json")
    assert decide_recorded(again, margin=0.03)[0]["call"] == decide_recorded(run, margin=0.03)[0]["call"]
    assert again.points[0]["step_seconds_median"] == pytest.approx(run.points[0]["step_seconds_median"], abs=1e-7)
    pool = program.pool_pairs([again, again])
    assert pool.worse_by.size == 2 * 8 * 18 and pool.controls.shape == (1, 2 * 8 * 18)
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
