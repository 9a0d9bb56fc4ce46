"""Policies: which margin counts, what is refused, and when an exception ends."""

from __future__ import annotations

import pytest

from hvbench.comparison.gate.policy import parse_policy
from hvbench.errors import UsageError

POLICY = """
margin = 0.04
[metrics.peak_rss_bytes]
margin = 0.05
[metrics.tokens_per_second]
direction = "lower"
[metrics.step_seconds_p95]
gate = true
[suites.smoke]
margin = 0.10
[suites.smoke.metrics.peak_rss_bytes]
margin = 0.20
[suites.batch.metrics.step_seconds_median]
gate = false
[[accepted]]
point = "tensorflow-*-bf16-*"
metric = "step_seconds_median"
up_to = 0.10
suite = "smoke"
reason = "known"
expires = 2027-03-31
"""


@pytest.mark.parametrize(
    ("metric", "suite", "margin"),
    [
        ("step_seconds_median", "other", 0.04),
        ("peak_rss_bytes", "other", 0.05),
        ("step_seconds_median", "smoke", 0.10),
        ("peak_rss_bytes", "smoke", 0.20),
        ("peak_rss_bytes", "batch", 0.05),
        ("tokens_per_second", "other", 0.04),
    ],
)
def test_the_most_particular_margin_counts(metric: str, suite: str, margin: float) -> None:
    assert parse_policy(POLICY, where="p").margin_of(metric, suite=suite) == margin


MIB = 2.0**20


@pytest.mark.parametrize(
    ("text", "peak_mib", "margin_mib"),
    [
        ("", 40, 8.0),  # 3 % would be 1.2 MiB
        ("", 250, 8.0),
        ("", 500, 15.0),
        ("margin = 0.10", 40, 8.0),  # of all metrics: no share of a small process is too small a change to see
        ("margin = 0.10", 200, 20.0),
        ("[suites.x]\nmargin = 0.04", 100, 8.0),
        ("[metrics.peak_rss_bytes]\nmargin = 0.10", 40, 4.0),  # memory's own: as the policy says
        ("[metrics.peak_rss_bytes]\nmargin = 0.02", 40, 2.0),  # down to what the kernel gives at once
        ("[suites.x.metrics.peak_rss_bytes]\nmargin = 0.10", 40, 4.0),
        ("[suites.x]\nmargin = 0.04\n[metrics.peak_rss_bytes]\nmargin = 0.10", 40, 8.0),
        ("[suites.x.metrics.peak_rss_bytes]\ngate = true\n[metrics.peak_rss_bytes]\nmargin = 0.10", 40, 4.0),
    ],
)
def test_a_margin_of_memory_is_at_least_eight_mebibytes_unless_it_is_memorys_own(
    text: str, peak_mib: int, margin_mib: float
) -> None:
    margin = parse_policy(text, where="p").margin_of("peak_rss_bytes", suite="x", typical=peak_mib * MIB)
    assert margin * peak_mib == pytest.approx(margin_mib)


def test_an_empty_policy_is_the_rule_itself() -> None:
    policy = parse_policy("", where="p")
    assert policy.margin_of("step_seconds_median", suite="x") == 0.03 and not policy.fail_on_baseline
    judged = [
        name
        for name in ("step_seconds_median", "peak_rss_bytes", "tokens_per_second")
        if policy.judges(name, suite="x")
    ]
    assert judged == ["step_seconds_median", "peak_rss_bytes"]
    assert policy.is_lower_better("step_seconds_median", suite="x") and not policy.is_lower_better(
        "tokens_per_second", suite="x"
    )


def test_a_suite_may_judge_by_other_metrics() -> None:
    policy = parse_policy(POLICY, where="p")
    assert policy.judges("step_seconds_p95", suite="other") and policy.is_lower_better(
        "tokens_per_second", suite="other"
    )
    assert not policy.judges("step_seconds_median", suite="batch") and policy.judges(
        "step_seconds_median", suite="smoke"
    )


@pytest.mark.parametrize(
    ("changes", "is_accepted"),
    [
        ({}, True),
        ({"today": "2027-03-31"}, True),
        ({"today": "2027-04-01"}, False),
        ({"change": 0.11}, False),
        ({"suite": "batch"}, False),
        ({"metric": "peak_rss_bytes"}, False),
        ({"point_id": "pytorch-small-b8x1-bf16-none-00"}, False),
    ],
)
def test_an_exception_covers_what_it_says_until_its_day(changes: dict, is_accepted: bool) -> None:
    asked = {
        "point_id": "tensorflow-small-b8x1-bf16-none-00", "metric": "step_seconds_median", "suite": "smoke", "change": 0.09,
        "today": "2026-01-01",
    }  # fmt: skip
    assert bool(parse_policy(POLICY, where="p").find_accepted(**(asked | changes))) is is_accepted


def test_an_exception_that_has_expired_is_named() -> None:
    policy = parse_policy(POLICY, where="p")
    assert policy.expired(today="2027-03-31") == [] and len(policy.expired(today="2027-04-01")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("margin = 3", "p: margin = 3: must be less than 1"),
        ("margin = 0", "p: margin = 0: must be greater than 0"),
        ("margn = 0.1", 'p: unknown key "margn" (did you mean "margin"?)'),
        (
            "[metrics.step_secnds_median]\nmargin = 0.1",
            'p: unknown metric "step_secnds_median" (did you mean "step_seconds_median"?)',
        ),
        ("[metrics.peak_rss_bytes]\ndirection = 'up'", "p: metrics.peak_rss_bytes.direction"),
        ("[[accepted]]\npoint = 'x'\nmetric = 'loss'\nexpires = 2027-01-01", "p: accepted.0.reason is missing"),
        ("[[accepted]]\npoint = 'x'\nmetric = 'loss'\nreason = 'r'", "p: accepted.0.expires is missing"),
        ("[[accepted]]\npoint = 'x'\nmetric = 'loss'\nreason = 'r'\nexpires = 'soon'", "p: accepted.0.expires"),
        ("margin = ", "p: not valid TOML"),
        ("a = " + "[" * 50 + "]" * 50, "p: tables or lists nested"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_policy(text, where="p")
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
