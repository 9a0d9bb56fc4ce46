"""What compiling costs and saves: steps to pay back against launches whose seconds are known, and where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.stats.quotients import quotient_of_means
from hvbench.analysis.topics.compilation import compilation_table, find_compiled, has_both
from hvbench.records.record import Record
from tests.unit.sample_records import make_rank, make_record, make_stamp

REQUEST = {"compares": ["compile"], "command": "hvbench sweep example --np 2"}


def launches(
    *, saved: float, cost: float = 20.0, noise: float = 0.002, repeats: int = 5, framework: str = "pytorch"
) -> list[Record]:
    """Launches of 100 ms a step, and compiled ones whose first step takes `cost` seconds more and every other `saved` less."""
    records = []
    for repeat in range(repeats):
        random = np.random.default_rng(repeat)
        for compile_, first, step in (("none", 0.5, 0.1), ("default", 0.5 + cost, 0.1 - saved)):
            spread = 1 + noise * random.standard_normal()
            seconds = [first * spread, *[step * spread] * 7]
            rank = make_rank(step_seconds=seconds, data_seconds=[0.0] * 8)
            records.append(
                make_record([rank], repeat=repeat, compile=compile_, framework=framework, parity=make_stamp())
            )
    return records


def answer(records: list[Record]) -> str:
    return find_answer(Run(records, REQUEST)).headlines[0].text


def cells(records: list[Record]) -> dict[str, str]:
    table = compilation_table(Run(records, REQUEST))
    (row,) = table.cells
    return dict(zip(table.header, row, strict=True))


def test_cost_over_saving_is_what_pays_it_back() -> None:
    (found,) = find_compiled(Run(launches(saved=0.01), REQUEST))
    assert found.extra_seconds.centre == pytest.approx(20, rel=0.01)
    assert found.steps.centre == pytest.approx(2000, rel=0.1) and found.steps.low < 2000 < found.steps.high
    assert found.minutes == pytest.approx((2000 * 0.1 + 0.5) / 60, rel=0.1)
    shown = cells(launches(saved=0.01))
    assert shown["compiling costs (s)"].startswith(("19.9", "20.0", "20.1")) and "…" in shown["steps to pay back"]
    assert answer(launches(saved=0.01)).startswith("In PyTorch compiling pays after ")


def test_longer_steps_never_pay() -> None:
    assert cells(launches(saved=-0.01))["steps to pay back"] == "never"
    assert cells(launches(saved=-0.01))["pays after (min)"] == "–"
    assert answer(launches(saved=-0.01)).startswith("In PyTorch compiling never pays: compiled is ")


def test_what_the_rounds_cannot_say_is_open_and_has_its_price() -> None:
    assert cells(launches(saved=0.003, noise=0.1))["steps to pay back"] == "open"
    said = answer(launches(saved=0.003, noise=0.1))
    assert (
        said.startswith("In PyTorch 5 rounds cannot say whether compiled or not compiled is faster")
        and "repeats=" in said
    )


def test_equal_steps_save_nothing_and_a_free_compiler_pays_at_once() -> None:
    assert cells(launches(saved=0.0001))["steps to pay back"] == "no shorter step"
    assert cells(launches(saved=0.02, cost=-0.2))["steps to pay back"] == "0"


def test_one_framework_pays_and_another_does_not() -> None:
    said = answer([*launches(saved=-0.02), *launches(saved=0.02, framework="tensorflow")])
    assert said.startswith("In TensorFlow compiling pays after ") and "; in PyTorch compiling never pays: " in said


def test_runs_without_both_have_no_such_topic() -> None:
    records = launches(saved=0.01)
    assert not has_both(Run([record for record in records if record.point.compile == "none"], REQUEST))
    assert not has_both(Run([record for record in records if record.point.compile != "none"], REQUEST))


# The quotient and its interval


def test_the_interval_of_a_quotient_is_all_quotients_that_a_paired_t_test_does_not_refuse() -> None:
    from scipy import stats

    random = np.random.default_rng(3)
    above, below = 20 + random.standard_normal(6), 0.01 + 0.002 * random.standard_normal(6)
    found = quotient_of_means(above.tolist(), below.tolist())
    assert found.centre == pytest.approx(above.mean() / below.mean())
    for end in (found.low, found.high):
        assert stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05)
    inside = (found.low + found.high) / 2
    assert stats.ttest_1samp(above - inside * below, 0).pvalue > 0.05


def test_a_quotient_whose_denominator_may_be_nothing_is_open_above() -> None:
    found = quotient_of_means([20.0, 20.5, 19.5], [0.01, -0.02, 0.02])
    assert found.high == math.inf and 0 < found.low < found.centre
    assert quotient_of_means([20.0, 20.5, 19.5], [-0.01, -0.02, -0.03]).centre == math.inf
    assert quotient_of_means([20.0], [0.01]).low is None
    everything = quotient_of_means([1.0, -1.0, 0.5], [0.01, -0.02, 0.02])
    assert (everything.low, everything.high) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="needs pairs"):
        quotient_of_means([], [])
