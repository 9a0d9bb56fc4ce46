"""Quantiles of the upper tail are given only where the samples carry them, and else it is said that they do not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import METRICS
from hvbench.analysis.frame.quantiles import samples_needed, tail_quantile
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.communication.cost import error_factor
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_pairs
from hvbench.comparison.gate.policy import parse_policy
from hvbench.comparison.history import trace
from hvbench.comparison.outputs.history import render_text
from hvbench.comparison.result import LaunchSet
from hvbench.records.record import Record
from hvbench.tracking.export import make_run, pair_with_figures
from tests.unit.sample_records import make_rank, make_record

P95 = "step_seconds_p95"


@pytest.mark.parametrize(
    ("probability", "needed"), [(0.5, 2), (0.75, 4), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)]
)
def test_a_quantile_needs_a_sample_beyond_it(probability: float, needed: int) -> None:
    assert samples_needed(probability) == needed
    samples = np.arange(1.0, needed)
    assert tail_quantile(samples, probability) is None
    assert tail_quantile(np.append(samples, needed), probability) == pytest.approx(1 + (needed - 1) * probability)


def launch(steps: int, *, repeat: int = 0, first: float = 1.0) -> Record:
    """Timed steps of `first`, `first` + 1, … seconds on the slower of two ranks."""
    seconds = [first + step for step in range(steps)]
    return make_record(
        [make_rank(0, step_seconds=[9.0, *seconds]), make_rank(1, step_seconds=[9.0, *[0.5] * steps])], repeat=repeat
    )


# (timed steps of each launch of a point; what the table shows, in ms)
SHOWN = [
    ([5], "– (5 steps)"),
    ([19], "– (19 steps)"),
    ([9, 9], "– (18 steps)"),
    ([20], "19,050"),  # 1 to 20 s: 1 + 0.95 x 19
    ([10, 10], "10,000 (20 steps)"),  # 1 to 10 s twice: between the 19th, 10 s, and the 20th
    ([20, 10], "18,550 (30 steps)"),  # the 28.55th of 30: 18 s and 0.55 of the next
    ([20, 20], "19,050 ± 0 %"),  # launches that agree exactly
]  # fmt: skip


@pytest.mark.parametrize(("steps", "shown"), SHOWN)
def test_the_table_of_throughput_says_what_its_p95_is_of(steps: list[int], shown: str) -> None:
    records = [launch(count, repeat=repeat) for repeat, count in enumerate(steps)]
    table = throughput_table(Run(records))
    cells = dict(zip(table.header, table.cells[0], strict=True))
    assert cells["step p95 (ms)"] == shown
    assert table.data["timed_steps"].tolist() == [sum(steps)]
    assert pd.isna(table.data[P95][0]) == (sum(steps) < 20)
    assert "A p95 needs 20 timed steps" in table.notes[0]


def test_launches_that_did_not_end_in_ok_lend_no_steps() -> None:
    lost = launch(30, repeat=1)
    lost = lost.model_copy(update={"outcome": lost.outcome.model_copy(update={"status": "failed"})})
    table = throughput_table(Run([launch(10), lost]))
    assert table.data["timed_steps"].tolist() == [10] and table.data[P95].isna().all()


@pytest.mark.parametrize(("steps", "has_it"), [(5, False), (19, False), (20, True)])
def test_frames_trackers_and_comparisons_leave_out_what_a_launch_cannot_carry(steps: int, has_it: bool) -> None:
    records = [launch(steps, repeat=repeat) for repeat in range(2)]
    assert point_frame(records)[P95].notna().all() == has_it
    assert all((P95 in make_run(*pair).figures) == has_it for pair in pair_with_figures(records))
    sets = [LaunchSet(name=name, records=records, job="x") for name in ("a", "b")]
    (point,) = compare(sets).points
    assert (P95 in [change.metric.name for change in point.changes]) == has_it
    policy = parse_policy("[metrics.step_seconds_p95]\ngate = true\n", where="p")
    judgement = judge_pairs(compare(sets), Terms(policy=policy, suite="s", against="a", today="2026-01-01"), pairs=2)
    gaps = [check.text for check in judgement.checks if check.metric == P95 and check.kind == "missing"]
    assert gaps == ([] if has_it else ["step p95: not every launch has it, which needs 20 timed steps"])
    metric = next(metric for metric in METRICS if metric.name == P95)
    history = render_text(trace([("run", "2026-01-01", records)], metric), metric)
    assert ("no run with a step p95, which needs 20 timed steps" in history) != has_it


@pytest.mark.parametrize(("cases", "factor"), [(19, 1.19), (20, 1.20), (39, 1.38), (40, 1.39)])
def test_a_prediction_is_as_wrong_as_the_case_of_its_rank(cases: int, factor: float) -> None:
    """Held-out errors of 1 %, 2 %, …: the one of rank 95 % of n + 1, rounded up."""
    held = pd.DataFrame({"relative_error": np.arange(1, cases + 1) / 100})
    assert error_factor(held) == pytest.approx(factor, rel=1e-4)


def test_few_held_out_cases_allow_for_a_worse_one() -> None:
    """One case off by e^0.01: t(0.975, 1) = 12.706 times that."""
    assert error_factor(pd.DataFrame({"relative_error": [math.expm1(0.01)]})) == pytest.approx(
        math.exp(0.12706), rel=1e-4
    )
    held = pd.DataFrame({"relative_error": np.arange(1, 19) / 100})
    assert error_factor(held) > 1.18
