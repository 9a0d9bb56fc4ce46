"""The decision rule, and how often it is wrong: by simulation, at every margin of noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hvbench.comparison.gate.rule import LEVEL, LOOKS, Decision, Series, decide, find_moved, is_final

QUIET = [0.004, -0.003, 0.001, -0.002, 0.003, -0.001] * 3  # six pairs, three times


def one(
    worse_by: list[float], *, margin: float = 0.03, controls: dict | None = None, is_timing: bool = True
) -> Decision:
    (decision,) = decide([Series(worse_by=worse_by, margin=margin, is_timing=is_timing)], controls=controls)
    return decision


def shifted(by: float, *, pairs: int = 6) -> list[float]:
    return [by + value for value in QUIET[:pairs]]


@pytest.mark.parametrize(("by", "call"), [(0.06, "regression"), (0.0, "pass"), (-0.2, "pass"), (0.028, "inconclusive")])
def test_six_quiet_pairs_decide(by: float, call: str) -> None:
    decision = one(shifted(by))
    assert (decision.call, decision.pairs) == (call, 6)
    interval = scipy_stats.ttest_1samp(shifted(by), 0.0).confidence_interval(1 - LEVEL)
    assert (decision.low, decision.high) == (
        pytest.approx(np.expm1(interval.low)),
        pytest.approx(np.expm1(interval.high)),
    )
    assert decision.estimate == pytest.approx(np.expm1(by + np.mean(QUIET[:6])))


@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_below_six_pairs_there_is_no_verdict_however_large_the_change(pairs: int) -> None:
    decision = one(shifted(3.0, pairs=pairs))
    assert (decision.call, decision.reason, decision.estimate) == ("inconclusive", f"{pairs} pairs; 6 are needed", None)


@pytest.mark.parametrize("pairs", [7, 11])
def test_between_two_looks_nobody_looks(pairs: int) -> None:
    undecided = shifted(0.028, pairs=6)
    assert one([*undecided, *[9.0] * (pairs - 6)]) == one(undecided)
    assert one([*undecided, *[9.0] * 6]).pairs == 12


def test_a_clear_change_below_the_margin_passes_or_stays_open_but_is_no_regression() -> None:
    decision = one(shifted(0.015))
    assert decision.low > 0 and decision.call == "pass"


def test_a_large_but_unclear_change_is_inconclusive_to_the_end() -> None:
    noisy = [0.3, -0.2, 0.25, -0.15, 0.2, -0.1] * 3
    assert [one(noisy[:n]).call for n in LOOKS] == ["inconclusive"] * 3
    assert is_final([one(noisy)], pairs=18) and not is_final([one(noisy[:12])], pairs=12)


def test_what_a_look_has_decided_stays_decided() -> None:
    assert one([*shifted(0.0), *[0.5] * 6]).call == "pass"
    assert one([*shifted(0.06), *[-0.5] * 6]).call == "regression"


def test_the_margin_belongs_to_the_metric() -> None:
    assert one(shifted(0.06), margin=0.10).call == "pass"
    assert one(shifted(0.06), margin=0.065).call == "inconclusive"


def test_regressions_are_corrected_for_the_number_of_series_and_passes_are_not() -> None:
    weak = [0.06, 0.03, 0.05, 0.08, 0.02, 0.07]
    assert one(weak).call == "regression" and 0.0005 < one(weak).p_value < LEVEL / 2
    many = [Series(worse_by=weak, margin=0.03), *[Series(worse_by=QUIET[:6], margin=0.03)] * 30]
    decisions = decide(many)
    assert decisions[0].call == "inconclusive" and {each.call for each in decisions[1:]} == {"pass"}


def test_pairs_that_agree_exactly_need_no_interval() -> None:
    assert one([0.0] * 6).call == "pass" and one([0.05] * 6).call == "regression"


def test_a_control_that_moved_blocks_timings_and_nothing_else() -> None:
    controls = {"the kernel": shifted(0.05)}
    blocked = one(shifted(0.06), controls=controls)
    assert (blocked.call, blocked.reason) == (
        "inconclusive", "the machine moved: the kernel was 5.2 % slower beside B's launches than beside A's"
    )  # fmt: skip
    assert one(shifted(0.0), controls=controls).call == "inconclusive"  # nor does it pass
    assert one(shifted(0.06), controls=controls, is_timing=False).call == "regression"
    assert find_moved({"the kernel": shifted(-0.05)}, look=6).endswith("faster beside B's launches than beside A's")


@pytest.mark.parametrize("control", [shifted(0.004), [0.3, -0.3, 0.2, -0.1, 0.1, -0.1], [], shifted(0.05, pairs=5)])
def test_a_control_that_is_small_noisy_or_too_short_blocks_nothing(control: list[float]) -> None:
    assert one(shifted(0.06), controls={"the kernel": control}).call == "regression"


def test_more_pairs_are_asked_for_only_while_they_can_change_the_verdict() -> None:
    passed, failed, open_ = (Decision(call, "") for call in ("pass", "regression", "inconclusive"))
    assert is_final([passed, passed], pairs=6) and is_final([failed, open_], pairs=6)
    assert not is_final([passed, open_], pairs=6)


def test_sign_flip_stands_beside_the_t_test() -> None:
    assert one(shifted(0.06)).sign_flip_p_value == 2 / 64
    assert Decision("inconclusive", "").sign_flip_p_value is None


def run_to_the_end(worse_by: np.ndarray, *, series: int = 1) -> str:
    """As `hvbench ab` does it: look, and stop as soon as it is clear."""
    for look in LOOKS:
        decisions = decide([Series(worse_by=row[:look], margin=1e-9 if series == 1 else 0.03) for row in worse_by])
        if is_final(decisions, pairs=look):
            break
    calls = {decision.call for decision in decisions}
    return "regression" if "regression" in calls else calls.pop() if len(calls) == 1 else "inconclusive"


def test_false_regressions_stay_below_two_and_a_half_percent_even_without_a_margin() -> None:
    """The level alone, vectorised: 200,000 sequences of 18 pairs, standard error 0.035 %."""
    random = np.random.default_rng(3)
    pairs = random.standard_normal((200_000, 18))
    is_alarm = np.zeros(len(pairs), dtype=bool)
    for look in LOOKS:
        seen = pairs[:, :look]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(look))
        is_alarm |= scipy_stats.t.sf(t, look - 1) <= LEVEL / 2
    assert 0.023 <= is_alarm.mean() <= 0.0255
    alarms = [run_to_the_end(row[None]) == "regression" for row in pairs[:300]]  # the rule is what was just computed
    assert alarms == is_alarm[:300].tolist()


@pytest.mark.parametrize("spread", [0.02, 0.08])
def test_false_regressions_of_ten_series_together_stay_below_two_and_a_half_percent(spread: float) -> None:
    random = np.random.default_rng(4)
    alarms = [run_to_the_end(random.normal(0, spread, (10, 18)), series=10) == "regression" for _ in range(400)]
    assert np.mean(alarms) <= 0.04  # 2.5 % and two standard errors of 400 trials


@pytest.mark.parametrize(("slower", "least"), [(0.05, 0.80), (0.10, 0.95)])
def test_power_where_pairs_differ_by_five_percent(slower: float, least: float) -> None:
    random = np.random.default_rng(5)
    found = [run_to_the_end(random.normal(np.log1p(slower), 0.05, (1, 18))) == "regression" for _ in range(300)]
    assert np.mean(found) >= least
