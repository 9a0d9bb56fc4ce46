"""Launches that never reach the target are censored: cases computed by hand, and the table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.survival import Observed, estimate_arrival, share_arrived
from hvbench.analysis.topics.targets import TOPIC, observe, plot_targets, target_table
from hvbench.records.record import Record
from tests.unit.sample_records import make_evaluation, make_rank, make_record


def observed(*values: float, lost: tuple[float, ...] = ()) -> list[Observed]:
    return [Observed(value=v, is_reached=True) for v in values] + [Observed(value=v, is_reached=False) for v in lost]


def test_without_censoring_it_is_the_share_of_launches() -> None:
    share = share_arrived(observed(10, 20, 30, 40))
    assert share.values == [10, 20, 30, 40]
    assert share.shares == pytest.approx([0.25, 0.5, 0.75, 1.0])
    arrival = estimate_arrival(observed(10, 20, 30, 40))
    assert (arrival.median, arrival.n, arrival.reached) == (20, 4, 4)


def test_the_product_limit_by_hand() -> None:
    """At 10 of 5 one arrives; two leave at 15; at 20 of 2 one arrives; the last is still there at 25."""
    launches = observed(10, 20, lost=(15, 15, 25))
    share = share_arrived(launches)
    survival = dict(zip(share.values, 1 - np.array(share.shares), strict=True))
    assert survival[10] == pytest.approx(4 / 5)
    assert survival[20] == pytest.approx(4 / 5 * 1 / 2)
    assert estimate_arrival(launches).median == 20


def test_the_lucky_do_not_speak_for_all() -> None:
    """One of five arrives early and the others never: no median, although the mean over those that did is 10."""
    arrival = estimate_arrival(observed(10, lost=(100,) * 4))
    assert (arrival.median, arrival.high, arrival.reached) == (None, None, 1)
    assert estimate_arrival(observed(lost=(5.0, 6.0))).median is None


def test_for_ever_counts_as_longer_than_any_other() -> None:
    never = estimate_arrival(observed(10, 20, lost=(math.inf, math.inf)))
    until_end = estimate_arrival(observed(10, 20, lost=(99, 99)))
    assert never == until_end
    early = estimate_arrival(observed(10, 20, lost=(5, 5)))  # seen for so short a time that they say nothing
    assert early.median == 10


def test_one_launch_has_no_interval() -> None:
    arrival = estimate_arrival(observed(10))
    assert (arrival.median, arrival.low, arrival.high, arrival.n) == (10, None, None, 1)
    with pytest.raises(ValueError, match="at least one launch"):
        estimate_arrival([])


def test_the_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    truth, hits, rounds = math.log(2), 0, 300
    for _ in range(rounds):
        arrivals, ends = random.exponential(1.0, 20), random.uniform(0.5, 4.0, 20)
        launches = [
            Observed(value=float(min(a, e)), is_reached=bool(a <= e)) for a, e in zip(arrivals, ends, strict=True)
        ]
        arrival = estimate_arrival(launches)
        low = 0.0 if arrival.low is None else arrival.low
        hits += low <= truth <= (math.inf if arrival.high is None else arrival.high)
    assert 0.91 <= hits / rounds <= 0.99


def launch(losses: list[float], *, repeat: int, stopped_by: str | None = None, **changes) -> Record:
    evaluations = [make_evaluation(10 * i, loss, training_seconds=5.0 * i) for i, loss in enumerate(losses)]
    rank = make_rank(step_seconds=[1.0] * (10 * len(losses)), evaluations=evaluations, stopped_by=stopped_by)
    return make_record([rank], repeat=repeat, target_loss=3.0, **changes)


def test_each_end_of_a_launch_is_what_it_is() -> None:
    records = [
        launch([5.0, 3.0, 2.0], repeat=0),
        launch([5.0, 4.0, 3.5], repeat=1),
        launch([5.0, 4.0, 4.0], repeat=2, stopped_by="patience"),
        launch([5.0], repeat=3, status="diverged"),
        launch([5.0], repeat=4, status="oom"),  # says nothing about learning
    ]
    run = Run(records)
    points = run.points
    assert observe(points, "steps") == observed(10, lost=(20, math.inf, math.inf))
    assert observe(points, "seconds") == observed(5, lost=(10, math.inf, math.inf))
    table = target_table(run)
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["n"], row["reached"], row["steps to target"]) == ("4", "1 of 4", "not reached")
    assert pd.isna(table.data["steps_to_target"].iloc[0])
    assert len(plot_targets(run)["target_reached"].axes) == 3


def test_the_table_gives_medians_with_their_interval() -> None:
    records = [launch([5.0, 4.0] + [3.0] * (repeat + 1), repeat=repeat) for repeat in range(3)]
    records += [launch([5.0, 4.0, 4.0, 3.0], repeat=repeat) for repeat in (3, 4)]
    table = target_table(Run(records))
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["reached"], row["steps to target"], row["95 % interval (steps)"]) == ("5 of 5", "20", "20 to open")
    assert row["tokens to target"] == f"{20 * 8 * 32:,}"


def test_without_repeats_there_is_nothing_to_say() -> None:
    assert not TOPIC.needs.is_met(Run([launch([5.0, 3.0], repeat=0)]))


def test_a_launch_that_ended_early_is_complete() -> None:
    for stopped_by, status in ((None, "failed"), ("target", "ok")):
        rank = make_rank(step_seconds=[1.0] * 4, stopped_by=stopped_by)
        record = make_record([rank]).model_copy(deep=True)
        asked = record.measure.model_copy(update={"steps": 50})
        assert point_frame([record.model_copy(update={"measure": asked})])["status"].tolist() == [status]
