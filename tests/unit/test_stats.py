"""Estimates over launches against hand-computed intervals."""

from __future__ import annotations

import math

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.stats.estimates import (
    estimate_mean,
    estimate_rate,
    estimate_ratio,
    read_estimate,
    summarize_launches,
)
from tests.unit.sample_records import make_evaluation, make_launch, make_rank, make_record


def test_mean_of_three_launches() -> None:
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027."""
    estimate = estimate_mean([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert (estimate.centre, estimate.n, estimate.confidence) == (2.0, 3, 0.95)
    assert (estimate.low, estimate.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_rate_is_a_mean_on_the_logarithm() -> None:
    estimate = estimate_rate([50.0, 200.0])
    assert estimate.centre == pytest.approx(100.0)  # the geometric mean; the arithmetic one is 125
    assert estimate.low * estimate.high == pytest.approx(100.0**2)
    seconds = estimate_rate([1 / 50, 1 / 200])
    assert 1 / seconds.high == pytest.approx(estimate.low)


def test_one_launch_has_no_interval() -> None:
    estimate = estimate_rate([7.0])
    assert (estimate.centre, estimate.low, estimate.high, estimate.n) == (pytest.approx(7.0), None, None, 1)


def test_launches_that_agree_have_an_interval_of_no_width() -> None:
    estimate = estimate_mean([3.0, 3.0, 3.0])
    assert (estimate.low, estimate.high) == (3.0, 3.0)


def test_a_ratio_of_launches_by_welch() -> None:
    """ln: 0, 2 against 1, 1: difference 0 with standard error sqrt(2/2 + 0/2) = 1 and (1)^2 / (1^2 / 1) = 1 degree."""
    estimate = estimate_ratio([1.0, math.e**2], [math.e, math.e])
    assert (estimate.centre, estimate.n) == (pytest.approx(1.0), 2)
    assert math.log(estimate.high) == pytest.approx(12.706204736)  # t(0.975, 1)
    assert estimate.low * estimate.high == pytest.approx(1.0)


def test_a_ratio_needs_two_launches_of_each_for_an_interval() -> None:
    estimate = estimate_ratio([3.0], [2.0, 2.0])
    assert (estimate.centre, estimate.low, estimate.high, estimate.n) == (pytest.approx(1.5), None, None, 1)
    alike = estimate_ratio([3.0, 3.0], [2.0, 2.0])
    assert (alike.low, alike.high) == (pytest.approx(1.5), pytest.approx(1.5))


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_an_estimate_needs_finite_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate_mean(values)


def test_a_rate_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        estimate_rate([1.0, 0.0])


def test_summary_counts_launches_and_how_they_ended() -> None:
    point = {"framework": "pytorch"}
    launches = [make_launch(point, repeat=0), make_launch(point, repeat=1)]
    lost = make_record(status="oom", phase="measure", message="no memory", repeat=2, model="small", framework="pytorch")
    row = summarize_launches(point_frame([*launches, lost])).iloc[0]
    assert (row["launches"], row["launches_ok"]) == (3, 2)
    assert row["status"] == "2 of 3 ok, 1 of 3 oom"
    assert row["reason"] == "measure: no memory"
    assert read_estimate(row, "tokens_per_second").n == 2


def test_summary_of_a_lost_point_has_no_estimate() -> None:
    row = summarize_launches(point_frame([make_record(status="timeout")])).iloc[0]
    assert row["status"] == "timeout"
    assert read_estimate(row, "tokens_per_second") is None


def test_a_target_that_one_launch_missed_has_no_mean() -> None:
    def launch(repeat: int, loss: float):
        rank = make_rank(step_seconds=[1.0] * 3, evaluations=[make_evaluation(3, loss)])
        return make_record([rank], repeat=repeat, target_loss=4.0)

    row = summarize_launches(point_frame([launch(0, 3.0), launch(1, 5.0)])).iloc[0]
    assert row["target"] == "reached by 1 of 2"
    assert read_estimate(row, "seconds_to_target") is None
    assert read_estimate(row, "final_validation_loss").centre == 4.0


def test_summary_does_not_depend_on_the_order_of_records() -> None:
    records = [
        make_launch({"framework": name, "precision": p}) for name in ("tensorflow", "pytorch") for p in ("bf16", "fp32")
    ]
    summary = summarize_launches(point_frame(records))
    assert summary["framework"].tolist() == ["pytorch", "pytorch", "tensorflow", "tensorflow"]
    assert summary["precision"].tolist() == ["fp32", "bf16", "fp32", "bf16"]
    assert summarize_launches(point_frame(reversed(records))).equals(summary)
