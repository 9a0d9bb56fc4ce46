"""Strategies compared with Horovod: launches of the same repeat are paired; without an exchange, the ratio is its cost."""

from __future__ import annotations

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.strategies import SERVED_HEADER, TOPIC, strategy_table
from hvbench.records.record import Record
from tests.unit.sample_records import make_rank, make_record

SECONDS = {"horovod": 0.200, "native": 0.180, "local": 0.120}


def launches(
    strategies: tuple[str, ...] = tuple(SECONDS), *, framework: str = "pytorch", **fields: object
) -> list[Record]:
    """Three repeats on a machine that becomes slower: every strategy by the same factor."""
    return [
        make_record(
            [make_rank(rank, step_seconds=[2.0, *[SECONDS[strategy] * (1 + 0.2 * repeat)] * 5]) for rank in range(2)],
            repeat=repeat, framework=framework, strategy=strategy, **fields,
        )
        for repeat in range(3) for strategy in strategies
    ]  # fmt: skip


def test_a_drift_of_both_by_the_same_factor_does_not_widen_the_ratio() -> None:
    table = strategy_table(Run(launches()))
    rows = {row["strategy"]: row for row in table.data.to_dict("records")}
    assert rows["native"]["step_ratio_to_horovod"] == pytest.approx(0.9)
    assert rows["native"]["step_ratio_to_horovod_low"] == pytest.approx(0.9, rel=1e-5)  # equal rounds are known to 1e-6
    assert rows["horovod"]["exchange_seconds"] == pytest.approx(0.08 * 1.2)
    assert rows["horovod"]["exchange_seconds_low"] < 0.08 * 1.2 < rows["horovod"]["exchange_seconds_high"]
    cells = {row[1]: row for row in table.cells}
    assert cells["native (DistributedDataParallel)"][-2] == "0.90 (0.90 … 0.90)"
    assert cells["horovod"][-2] == "–" and cells["local"][-1] == "–"


def test_each_framework_is_compared_with_its_own_horovod() -> None:
    records = [*launches(), *launches(("native",), framework="tensorflow")]
    table = strategy_table(Run(records))
    assert {row[0] for row in table.cells} == {"pytorch"}, "TensorFlow's has no Horovod beside it"


def test_no_table_where_no_strategies_were_compared() -> None:
    assert not TOPIC.needs.is_met(Run(launches(("horovod",))))
    assert TOPIC.tables(Run(launches(("native", "local")))) == []


def test_a_run_with_servers_says_how_stale_its_gradients_were() -> None:
    served = [
        make_record(
            [make_rank(rank, step_seconds=[2.0, 0.2, 0.2], staleness=[9, rank, 3 * rank]) for rank in range(2)],
            framework="pytorch", strategy="parameter_server_async", repeat=repeat,
        )
        for repeat in range(2)
    ]  # fmt: skip
    table = strategy_table(Run([*launches(("horovod",)), *served]))
    cells = {row[1]: dict(zip(table.header, row, strict=True)) for row in table.cells}
    assert [cells["parameter_server_async"][name] for name in SERVED_HEADER] == ["1.00", "3"], "warm-up left out"
    assert [cells["horovod"][name] for name in SERVED_HEADER] == ["–", "–"]
    assert SERVED_HEADER[0] not in strategy_table(Run(launches())).header, "nothing of it where nothing was served"
