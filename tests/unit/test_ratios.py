"""Ratios of launches against scipy's own tests, hand-computed cases, and the rates of errors that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from hvbench.analysis.stats.ratios import (
    adjust_holm,
    adjust_holm_rows,
    locate,
    log_shift,
    log_shift_of_pairs,
    paired_ratio,
    sign_flip_p_value,
    welch_ratio,
)

RANDOM = np.random.default_rng(7)
A = RANDOM.lognormal(0.0, 0.05, 9)
B = RANDOM.lognormal(0.04, 0.08, 9)


def test_a_paired_ratio_is_the_paired_t_test_on_logarithms() -> None:
    ratio = paired_ratio(A, B)
    reference = scipy_stats.ttest_rel(np.log(B), np.log(A))
    interval = reference.confidence_interval(0.95)
    assert ratio.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)), rel=1e-9)
    assert ratio.ratio == pytest.approx(math.exp(np.mean(np.log(B / A))))
    assert (ratio.n_a, ratio.n_b, ratio.is_paired) == (9, 9, True)


def test_a_shift_is_the_median_of_all_ratios() -> None:
    assert log_shift([1.0, 2.0], [2.0, 3.0, 8.0]) == pytest.approx(np.median(np.log([2, 3, 8, 1, 1.5, 4])))
    assert log_shift(A, 1.1 * A) == pytest.approx(np.log(1.1))
    # ln of 2, 4 and 32 are 1, 2 and 5 times ln 2; the means of any two of them, themselves included, are 1, 1.5, 2, 3, 3.5, 5
    assert log_shift_of_pairs([1.0, 2.0, 1.0], [2.0, 8.0, 32.0]) == pytest.approx(2.5 * np.log(2))
    assert log_shift(A, B) == pytest.approx(-log_shift(B, A))
    with pytest.raises(ValueError, match="ratio needs"):
        log_shift(A, [0.0])


def test_a_shift_of_steps_that_scatter_to_one_side_is_known_better_than_the_ratio_of_medians() -> None:
    random = np.random.default_rng(3)
    steps = 0.2 + random.lognormal(0.0, 0.8, (2, 600, 80))  # as steps are: a floor, and a tail
    shifts = [log_shift(a, 1.05 * b) for a, b in zip(*steps, strict=True)]
    medians = np.log(1.05 * np.median(steps[1], axis=1) / np.median(steps[0], axis=1))
    assert np.mean(shifts) == pytest.approx(np.log(1.05), abs=3 * np.std(shifts) / np.sqrt(600))
    assert np.std(shifts) < 0.9 * np.std(medians)


def test_a_shift_of_very_many_values_is_one_of_their_quantiles() -> None:
    random = np.random.default_rng(4)
    a, b = random.lognormal(0.0, 0.3, (2, 3000))
    assert log_shift(a, 1.2 * b) == pytest.approx(np.median(np.subtract.outer(np.log(1.2 * b), np.log(a))), abs=1e-3)


def test_an_unpaired_ratio_is_welchs_t_test_on_logarithms() -> None:
    ratio = welch_ratio(A[:5], B)
    reference = scipy_stats.ttest_ind(np.log(B), np.log(A[:5]), equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert ratio.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)), rel=1e-9)
    assert (ratio.n_a, ratio.n_b, ratio.is_paired, ratio.sign_flip_p_value) == (5, 9, False, None)


def test_one_launch_has_a_ratio_and_no_interval() -> None:
    for ratio in (paired_ratio([2.0], [3.0]), welch_ratio([2.0], [3.0]), welch_ratio([2.0], [3.0, 3.0])):
        assert ratio.ratio == pytest.approx(1.5)
        assert (ratio.low, ratio.high, ratio.p_value) == (None, None, None)


def test_launches_that_agree_exactly_are_certain() -> None:
    for same in (paired_ratio([0.1] * 7, [0.1] * 7), welch_ratio([0.1] * 7, [0.1] * 6)):
        assert (same.low, same.ratio, same.high, same.p_value) == (1.0, 1.0, 1.0, 1.0)
    other = welch_ratio([0.1] * 3, [0.2] * 3)
    assert (other.low, other.high, other.p_value) == (pytest.approx(2), pytest.approx(2), 0.0)


@pytest.mark.parametrize("bad", [[0.0, 1.0], [-1.0, 1.0], [math.nan, 1.0], [math.inf, 1.0], []])
def test_what_has_no_logarithm_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio needs|pairs need"):
        paired_ratio(bad, bad)
    with pytest.raises(ValueError, match="ratio needs"):
        welch_ratio([1.0, 2.0], bad)


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_sign_flip_is_scipys_exact_permutation_test(n: int) -> None:
    differences = RANDOM.normal(0.02, 0.05, n)
    reference = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip_p_value(differences) == pytest.approx(reference.pvalue, rel=1e-12)


def test_sign_flip_cannot_be_surer_than_its_patterns() -> None:
    assert sign_flip_p_value([0.1] * 6) == 2 / 64
    assert sign_flip_p_value([0.1] * 18) == 2 / 2**18
    assert sign_flip_p_value([0.0] * 6) == 1.0
    assert sign_flip_p_value([0.1] * 25) == pytest.approx(2e-4)  # sampled: 1 of 10,000 a side


def test_holms_own_example() -> None:
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([]) == []
    of_more = adjust_holm_rows(np.array([0.01, 0.002]), np.array([True, True]), 3)
    assert of_more.tolist() == pytest.approx([0.04, 0.01])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_makes_surer(p_values: list[float]) -> None:
    adjusted = adjust_holm(p_values)
    assert all(a >= p and a <= 1.0 for a, p in zip(adjusted, p_values, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = [
        (where := locate(random.normal(0.03, 0.05, 6))).quantile(0.025) <= 0.03 <= where.quantile(0.975)
        for _ in range(4000)
    ]
    assert 0.94 <= np.mean(hits) <= 0.96
