"""Launches that never reach the target are censored: cases computed by hand, and the table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.survival import Observed, bound_survival, estimate_arrival, share_arrived
from hvbench.analysis.topics.targets import TOPIC, observe, plot_targets, target_table
from hvbench.records.record import Record
from hvbench.spec.settings import MeasureSettings
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


@pytest.mark.parametrize(
    ("arrived", "bounds"),
    [(5, (None, None)), (6, (1.0, 6.0)), (8, (1.0, 8.0)), (9, (2.0, 8.0))],
)
def test_the_interval_of_the_median_is_that_of_order_statistics_where_nothing_is_censored(arrived, bounds) -> None:
    """P(x_k <= median <= x_(n+1-k)) = 1 - 2 P(Binomial(n, 1/2) < k): 0.9375 with all of five, 0.96875 with all of six."""
    arrival = estimate_arrival(observed(*map(float, range(1, arrived + 1))))
    assert (arrival.low, arrival.high) == bounds


def test_without_censoring_the_share_on_the_way_has_clopper_and_pearsons_interval() -> None:
    times, low, high = bound_survival(observed(1.0, 2.0, 3.0, 4.0))
    assert times.tolist() == [-math.inf, 1.0, 2.0, 3.0, 4.0]
    exact = [stats.binomtest(left, 4).proportion_ci(0.95, method="exact") for left in (4, 3, 2, 1, 0)]
    assert low == pytest.approx([each.low for each in exact])
    assert high == pytest.approx([each.high for each in exact])


def launch(losses: list[float], *, repeat: int, stopped_by: str | None = None, **changes) -> Record:
    evaluations = [make_evaluation(10 * i, loss, training_seconds=5.0 * i) for i, loss in enumerate(losses)]
    rank = make_rank(step_seconds=[1.0] * (10 * len(losses)), evaluations=evaluations, stopped_by=stopped_by)
    return make_record([rank], repeat=repeat, target_loss=3.0, **changes)


def test_each_end_of_a_launch_is_what_it_is() -> None:
    records = [
        launch([5.0, 3.0, 2.0], repeat=0),
        launch([5.0, 4.0, 3.5], repeat=1),
        launch([5.0, 4.0, 4.0], repeat=2, stopped_by="patience"),
        *(
            launch([5.0, 3.0], repeat=3 + i, status=end)
            for i, end in enumerate(("diverged", "failed", "timeout", "oom"))
        ),
        launch([5.0], repeat=7, status="interrupted"),  # somebody ended it: it says nothing
    ]
    run = Run([record.model_copy(update={"measure": seeded(record.measure)}) for record in records])
    points = run.points
    assert observe(points, "steps") == observed(10, lost=(20, *[math.inf] * 5))
    assert observe(points, "seconds") == observed(5, lost=(10, *[math.inf] * 5))
    table = target_table(run)
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["n"], row["seeds"], row["reached"], row["steps to target"]) == ("7", "7", "1 of 7", "not reached")
    assert pd.isna(table.data["steps_to_target"].iloc[0])
    assert len(plot_targets(run)["target_reached"].axes) == 3


def test_the_table_gives_medians_with_their_interval() -> None:
    records = [launch([5.0, 4.0] + [3.0] * (repeat + 1), repeat=repeat, seed_per_repeat=True) for repeat in range(4)]
    records += [launch([5.0, 4.0, 4.0, 3.0], repeat=repeat, seed_per_repeat=True) for repeat in (4, 5)]
    row = read_row(records)
    assert (row["reached"], row["steps to target"], row["95 % interval (steps)"]) == ("6 of 6", "20", "20 to 30")
    assert row["tokens to target"] == f"{20 * 8 * 32:,}"
    of_one_seed = read_row(
        [record.model_copy(update={"measure": MeasureSettings(target_loss=3.0)}) for record in records]
    )
    assert (of_one_seed["n"], of_one_seed["seeds"], of_one_seed["95 % interval (steps)"]) == ("6", "1", "one seed")
    assert of_one_seed["95 % interval (seconds)"] == "10.00 to 15.00"  # of that seed's training, on this machine


def read_row(records: list[Record]) -> dict[str, str]:
    table = target_table(Run(records))
    return dict(zip(table.header, table.cells[0], strict=True))


def seeded(measure: MeasureSettings) -> MeasureSettings:
    return measure.model_copy(update={"seed_per_repeat": True})


def test_without_repeats_there_is_nothing_to_say() -> None:
    assert not TOPIC.needs.is_met(Run([launch([5.0, 3.0], repeat=0)]))


def test_a_launch_that_ended_early_is_complete() -> None:
    for stopped_by, status in ((None, "failed"), ("target", "ok")):
        rank = make_rank(step_seconds=[1.0] * 4, stopped_by=stopped_by)
        record = make_record([rank]).model_copy(deep=True)
        asked = record.measure.model_copy(update={"steps": 50})
        assert point_frame([record.model_copy(update={"measure": asked})])["status"].tolist() == [status]
