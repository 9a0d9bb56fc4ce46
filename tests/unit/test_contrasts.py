"""The one rule of "faster": worked cases, what holds of every call, and how often simulated sweeps are called wrongly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hvbench.analysis.stats.contrasts import Call, Limits, judge_differences, judge_family, rounds_to_tell

STEADY = [[0.060, 0.062, 0.058, 0.061, 0.059]]


def test_one_contrast_is_the_paired_t_test() -> None:
    (found,) = judge_family(STEADY).contrasts
    reference = scipy_stats.ttest_1samp(STEADY[0], 0.0)
    interval = reference.confidence_interval(0.95)
    assert found.ratio == pytest.approx(math.exp(0.06))
    assert (found.low, found.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.call, found.rounds) == (Call.FASTER, 5)
    assert judge_family(STEADY).mean is None


def test_b_over_a_says_the_same_the_other_way_round() -> None:
    (found,), (turned,) = (judge_family([[sign * x for x in STEADY[0]]]).contrasts for sign in (1, -1))
    for name in ("ratio", "low", "high", "p_value"):
        assert getattr(found.turned(), name) == pytest.approx(getattr(turned, name))
    assert found.turned().call == turned.call == Call.SLOWER


@pytest.mark.parametrize(
    ("values", "call"),
    [
        ([0.011, 0.0111, 0.0109], Call.FASTER),
        ([0.009, 0.0091, 0.0089], Call.EQUAL),  # well known, and less than 1 %
        ([-0.0001, 0.0002, 0.0], Call.EQUAL),
        ([0.05, -0.06, 0.2], Call.OPEN),
        ([0.05], Call.OPEN),  # one round says nothing about chance
        ([], Call.OPEN),
        ([0.0, 0.0, 0.0], Call.EQUAL),
    ],
)
def test_calls(values: list[float], call: Call) -> None:
    (found,) = judge_family([values]).contrasts
    assert found.call == call
    assert (found.low is None) == (len(values) < 2)


def test_rounds_that_a_contrast_lacks_are_no_evidence() -> None:
    found = judge_family([[0.05, math.nan, 0.06, 0.055], [0.05, 0.06], [math.nan, 0.07]])
    assert [each.rounds for each in found.contrasts] == [3, 2, 1]
    assert found.contrasts[2].low is None
    assert found.mean is None  # no two rounds have all of them


def test_the_calls_follow_from_the_intervals() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        k, n = random.integers(1, 7), random.integers(2, 6)
        found = judge_family(random.normal(random.choice([0, 0.03, 0.06]), 0.02, (k, n)).tolist())
        for each in (*found.contrasts, *([found.mean] if found.mean else [])):
            leaves_out_1 = each.low > 1 or each.high < 1
            assert (each.p_value <= 0.05) == leaves_out_1
            is_large = abs(math.log(each.ratio)) >= math.log(1.01)
            assert (each.call in (Call.FASTER, Call.SLOWER)) == (leaves_out_1 and is_large)


def test_differences_in_another_unit_have_limits_of_their_own() -> None:
    values = [[0.5, 0.51, 0.49]]
    assert judge_differences(values, limits=Limits(least=1.0, equal_within=2.0)).each[0].call == Call.EQUAL
    found = judge_differences(values, limits=Limits(least=0.1, equal_within=0.2)).each[0]
    assert (found.call, found.mean) == (Call.FASTER, pytest.approx(0.5))


def test_a_smaller_difference_and_a_larger_spread_take_more_rounds() -> None:
    calm, noisy = (judge_family(np.random.default_rng(1).normal(0, s, (5, 5)).tolist()) for s in (0.02, 0.05))
    assert 2 <= rounds_to_tell(calm) < rounds_to_tell(noisy)
    assert rounds_to_tell(calm) <= rounds_to_tell(calm, difference=0.02)
