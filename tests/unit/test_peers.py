"""The peers benchmark: its arithmetic by hand, and one real, small run of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.ratios import (
    check_equal_work,
    compare_steps,
    judge,
    plan_rounds,
    rate_rows,
    ratio_rows,
    tokens_per_second,
)
from hvbench.analysis.stats.estimates import Estimate

ROOT = Path(__file__).parents[2]


def make_launch(contender: str, *, number: int, step_seconds: float, **changes: object) -> dict:
    """One launch: a slow warm-up step, two timed ones and an outlier."""
    seconds = [9.0, step_seconds, step_seconds, 4 * step_seconds]
    return {
        "contender": contender,
        "round": number,
        "precision": "fp32",
        "sequence_length": 128,
        "parameters": 1000,
        "tokens_per_step": 60,
        "warmup_steps": 1,
        "step_seconds": seconds,
        "cpu_seconds": [value / 2 for value in seconds],
        "loss": [5.5, 5.4, 5.3, 5.2],
        **changes,
    }


def test_rate_is_tokens_over_seconds_without_the_warm_up() -> None:
    assert tokens_per_second(make_launch("pytorch", number=0, step_seconds=0.5)) == pytest.approx(3 * 60 / 3.0)


def test_a_ratio_pairs_the_rounds_and_compares_medians() -> None:
    twin = {r: make_launch("pytorch", number=r, step_seconds=s) for r, s in ((0, 1.0), (1, 10.0), (2, 1.0))}
    peer = {r: make_launch("huggingface", number=r, step_seconds=s) for r, s in ((0, 2.0), (1, 20.0))}
    estimate = compare_steps(twin, peer)  # round 1 was slow for both: no matter
    assert (estimate.centre, estimate.low, estimate.high) == pytest.approx((2.0, 2.0, 2.0))
    assert estimate.n == 2
    peer[1] = make_launch("huggingface", number=1, step_seconds=80.0)
    estimate = compare_steps(twin, peer)
    assert estimate.centre == pytest.approx(4.0)  # of 2 and 8, on the log scale
    assert math.log(estimate.high / 4.0) == pytest.approx(
        12.706 * math.log(2.0), rel=1e-4
    )  # t of one degree of freedom
    assert compare_steps(twin, peer, clock="cpu_seconds").centre == pytest.approx(4.0)


def test_every_published_row_has_n_and_an_interval() -> None:
    names = ("pytorch", "plain-torch", "keras-hub")
    launches = [make_launch(name, number=r, step_seconds=1.0 + r / 10) for name in names for r in range(3)]
    rates, ratios = rate_rows(launches, names), ratio_rows(launches)
    assert [row["contender"] for row in rates] == list(names)
    assert [(row["twin"], row["peer"]) for row in ratios] == [("pytorch", "plain-torch")]
    assert {row["n"] for row in [*rates, *ratios]} == {3}
    assert all("…" in row["95 % interval"] for row in rates)
    assert all("…" in row[name] for row in ratios for name in ("twin/peer", "by CPU time"))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.21, 1.4, "reached"), (1.1, 1.19, "missed"), (1.1, 1.3, "undecided"), (None, None, "n=1")],
)
def test_a_goal_is_judged_by_the_whole_interval(low: float | None, high: float | None, verdict: str) -> None:
    assert judge(Estimate(centre=1.2, low=low, high=high, n=3)) == verdict


def test_orders_are_balanced_in_pairs_and_follow_the_seed() -> None:
    names = ["a", "b", "c"]
    orders = plan_rounds(names, rounds=6, seed=1)
    assert all(sorted(order) == names for order in orders)
    assert all(orders[number + 1] == orders[number][::-1] for number in (0, 2, 4))
    before = Counter(order.index("a") < order.index("b") for order in orders)
    assert before[True] == before[False]
    assert orders == plan_rounds(names, rounds=6, seed=1) != plan_rounds(names, rounds=6, seed=2)


@pytest.mark.parametrize("changes", [{"parameters": 999}, {"tokens_per_step": 59}])
def test_unequal_work_is_refused(changes: dict[str, int]) -> None:
    launches = [
        make_launch("pytorch", number=0, step_seconds=1.0),
        make_launch("x", number=0, step_seconds=1.0, **changes),
    ]
    with pytest.raises(ValueError, match="x trains"):
        check_equal_work(launches)
    check_equal_work(launches[:1])


def run_peers(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_a_wrong_command_line_starts_nothing() -> None:
    done = run_peers("--contenders", "pytorch,jax")
    assert done.returncode == 2
    assert "unknown contender jax; allowed: pytorch, huggingface" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_twin_and_plain_torch_do_the_same_work(tmp_path: Path) -> None:
    done = run_peers(
        "--contenders", "pytorch,plain-torch", "--rounds", "2", "--steps", "2", "--warmup-steps", "1", "--model", "tiny",
        "--precision", "fp32", "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in done.stdout
    launches = json.loads((tmp_path / "launches.json").read_text(encoding="utf-8"))["launches"]
    assert len(launches) == 4
    assert {len(each["step_seconds"]) for each in launches} == {3}
    assert {each["keeps_freed_memory"] for each in launches} == {True}  # all or none
    for losses in zip(*(each["loss"] for each in launches), strict=True):  # the same weights, tokens and updates
        assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
