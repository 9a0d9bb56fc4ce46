"""Idle time of the ranks: who came last, how long the others waited, and when a rank may be called the straggler."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.analysis.frame.idle import idle_seconds, idle_share, straggler_rank
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.topics.stragglers.costs import cost_table, describe_costs, pace_seconds
from hvbench.analysis.topics.stragglers.sentences import describe_stragglers, find_stragglers
from hvbench.analysis.topics.stragglers.table import MOST_RANKS, idle_table
from hvbench.analysis.topics.stragglers.topic import TOPIC, has_straggler
from hvbench.analysis.topics.stragglers.work import measure_ranks
from hvbench.plan.skip import reason_to_skip
from hvbench.records.record import Record
from hvbench.spec.point import Point
from tests.unit.sample_records import make_rank, make_record

STEPS, EXCHANGE = 21, 0.010


def waiting_record(own: list[float], *, repeat: int = 0, noise: float = 0.0, **point: object) -> Record:
    """Ranks that work so many seconds a step, then wait for the slowest of them and for an exchange of 10 ms; the first step is warm-up."""
    random = np.random.default_rng([repeat, len(own)])
    works = np.array(own)[:, None] * (1 + noise * random.standard_normal((len(own), STEPS)))
    ends = works.max(axis=0) + EXCHANGE
    ranks = [
        make_rank(
            rank,
            step_seconds=(ends - 0.001).tolist(),  # the wait for a batch, which `make_rank` adds, is a rank's own work
            exchange_wait_seconds=(ends - works[rank]).tolist(),
        )
        for rank in range(len(own))
    ]
    return make_record(ranks, repeat=repeat, **point)


def test_idle_is_what_a_rank_waits_longer_than_the_one_that_came_last() -> None:
    waits = np.array([[3.0, 1.0], [1.0, 1.5], [2.0, 4.0]])
    assert idle_seconds(waits).tolist() == [[2.0, 0.0], [0.0, 0.5], [1.0, 3.0]]
    samples = make_samples(waiting_record([0.030, 0.050]))
    assert straggler_rank(samples) == 1
    assert idle_share(samples) == pytest.approx((0.020 + 0.0) / 2 / 0.059)  # the exchange itself is nobody's idleness


@pytest.mark.parametrize("changes", [{"strategy": "parameter_server_async"}, {"world_size": 1}])
def test_ranks_that_do_not_wait_for_each_other_have_no_idle_time(changes: dict) -> None:
    own = [0.03] if changes.get("world_size") == 1 else [0.03, 0.05]
    record = waiting_record(own, **changes)
    assert idle_share(make_samples(record)) is None and straggler_rank(make_samples(record)) is None
    assert not TOPIC.needs.is_met(Run([record]))


def test_records_of_before_have_none() -> None:
    record = make_record([make_rank(rank, step_seconds=[0.1] * 3) for rank in range(2)])
    assert idle_share(make_samples(record)) is None and not TOPIC.needs.is_met(Run([record]))


def test_a_list_that_is_too_short_is_no_evidence() -> None:
    record = waiting_record([0.03, 0.05])
    ranks = [record.ranks[0], record.ranks[1].model_copy(update={"exchange_wait_seconds": [0.01]})]
    assert not TOPIC.needs.is_met(Run([record.model_copy(update={"ranks": ranks})]))


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_the_straggler_is_named_with_what_it_costs(slow: int) -> None:
    own = [0.040] * 3
    own[slow] = 0.050
    run = Run([waiting_record(own, repeat=repeat, noise=0.01) for repeat in range(4)])
    (found,) = find_stragglers(run)
    assert found.rank == slow and found.contrast.ratio == pytest.approx(1.25, rel=0.02)
    assert found.idle_share.centre == pytest.approx(0.010 / 0.059, rel=0.1)
    (sentence,) = describe_stragglers(run)
    assert sentence.text.startswith(f"Rank {slow} is the straggler: its own work takes 2"), sentence.text
    assert has_straggler(run)


def test_ranks_that_differ_by_chance_have_no_straggler() -> None:
    run = Run([waiting_record([0.040, 0.040], repeat=repeat, noise=0.05) for repeat in range(4)])
    assert TOPIC.needs.is_met(run) and not has_straggler(run)


def test_a_delay_on_purpose_is_told_apart_from_launches_without_one() -> None:
    records = [waiting_record([0.040, 0.040], repeat=repeat, noise=0.02) for repeat in range(4)]
    records += [
        waiting_record([0.040, 0.090], repeat=repeat, noise=0.02, straggler_seconds=0.05) for repeat in range(4)
    ]
    (sentence,) = describe_stragglers(Run(records))
    assert sentence.text.startswith("Rank 1 is the straggler with straggler 50 ms: "), sentence.text


def test_the_table_has_a_row_a_rank_and_of_many_the_ends() -> None:
    table = idle_table(Run([waiting_record([0.040, 0.050], repeat=repeat) for repeat in range(2)]))
    rows = [dict(zip(table.header, cells, strict=True)) for cells in table.cells]
    assert [row["rank"] for row in rows] == ["0", "1"]
    assert [row["own work (ms)"] for row in rows] == ["40.0", "50.0"]
    assert [row["idle (ms)"] for row in rows] == ["10.0", "0.0"]
    assert [row["last (% of the steps)"] for row in rows] == ["0", "100"]
    many = Run([waiting_record([0.040 + 0.001 * rank for rank in range(12)])])
    table = idle_table(many)
    at = table.header.index("rank")
    assert [cells[at] for cells in table.cells] == [str(rank) for rank in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert len(table.cells) == MOST_RANKS


def test_who_came_last_is_asked_of_steps_that_end_in_an_exchange() -> None:
    """Within a round of local updates nobody waits, and so nobody is last."""
    ranks = [
        make_rank(rank, step_seconds=[0.04] * 9, exchange_wait_seconds=[0.0, *[0.0, 0.0, 0.0, wait] * 2])
        for rank, wait in enumerate((0.02, 0.01))
    ]
    first, second = measure_ranks(make_samples(make_record(ranks)))
    assert (first.last_share, second.last_share) == (0.0, 1.0)
    assert first.idle_seconds == pytest.approx(0.01 / 4)


def test_a_straggler_needs_somebody_who_waits() -> None:
    assert reason_to_skip(Point(world_size=2, straggler_seconds=0.1), world_size=2) is None
    assert "waits for nobody" in str(reason_to_skip(Point(world_size=1, straggler_seconds=0.1), world_size=1))


def test_what_a_late_rank_costs_is_told_for_each_strategy() -> None:
    """Of ranks that wait for each other the whole delay, of others what all get done."""
    records = []
    for repeat in range(4):
        for strategy in ("horovod", "parameter_server_async"):
            records.append(waiting_record([0.040, 0.040], repeat=repeat, noise=0.01, strategy=strategy))
        late = {"straggler_seconds": 0.05, "repeat": repeat}
        records.append(waiting_record([0.040, 0.090], noise=0.01, strategy="horovod", **late))
        alone = [make_rank(rank, step_seconds=[0.050 + 0.050 * rank] * STEPS) for rank in range(2)]
        records.append(make_record(alone, strategy="parameter_server_async", **late))
    assert pace_seconds(records[-1]) == pytest.approx(2 / (1 / 0.05 + 1 / 0.10))
    run = Run(records)
    table = cost_table(run)
    rows = {row["strategy"]: row for row in (dict(zip(table.header, cells, strict=True)) for cells in table.cells)}
    assert table.data.set_index("strategy")["cost_seconds"]["horovod"] == pytest.approx(0.050, rel=0.05)
    assert rows["horovod"]["n"] == "4" and rows["horovod"]["late by (ms)"] == "50"
    (sentence,) = describe_costs(run)
    assert sentence.text.startswith("A rank that begins every step 50 ms late makes the steps longer by 1"), (
        sentence.text
    )
    assert sentence.text.index("parameter_server_async") < sentence.text.index("with horovod"), "the cheapest first"


def test_launches_without_their_counterpart_cost_nothing_that_can_be_told() -> None:
    assert describe_costs(Run([waiting_record([0.04, 0.09], straggler_seconds=0.05)])) == []
