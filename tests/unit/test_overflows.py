"""fp16 overflows: classified by where they happened, counted, and plotted."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.overflows import TOPIC, count_overflows, overflow_tables, plot_loss_scale
from hvbench.records.record import Overflow, Record
from tests.unit.sample_records import make_rank, make_record


def scaled_record(own: dict[int, tuple[bool, bool]], *, repeat: int = 0, **changes) -> Record:
    """Two ranks that skip the steps `own` names; for each, whether either rank's own gradients overflowed."""
    scales = [2.0**15]
    for step in range(9):
        scales.append(scales[-1] / 2 if step in own else scales[-1])
    ranks = []
    for rank in range(2):
        overflows = [Overflow(step=step, loss_scale=scales[step], is_own=each[rank]) for step, each in own.items()]
        lists = {"loss_scale": scales, "skipped_steps": list(own), "overflows": overflows}
        ranks.append(make_rank(rank, step_seconds=[1.0] * 10, **lists))
    return make_record(ranks, repeat=repeat, **{"precision": "fp16"} | changes)


def test_an_overflow_on_no_rank_of_its_own_was_on_the_wire() -> None:
    record = scaled_record({0: (True, True), 2: (False, True), 3: (False, False), 5: (False, False)})
    assert count_overflows(record) == (2, 2)
    assert count_overflows(scaled_record({})) == (0, 0)


def test_the_table_counts_over_launches() -> None:
    records = [scaled_record({0: (True, True), 3: (False, False)}), scaled_record({1: (False, False)}, repeat=1)]
    (table,) = overflow_tables(Run([*records, make_record([make_rank(step_seconds=[1.0] * 3)])]))
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert len(table.cells) == 1
    assert (row["n"], row["skipped steps"], row["own gradients"], row["on the wire"]) == ("2", "3", "1", "2")
    assert (row["trained"], row["loss scale"]) == ("of 20 steps", "8,192 to 32,768")


def test_the_plot_marks_every_skipped_step() -> None:
    records = [scaled_record({0: (True, True), 4: (False, False)}, compression=name) for name in ("none", "fp16")]
    figure = plot_loss_scale(Run(records))
    assert len(figure.axes) == 2
    for panel in figure.axes:
        crosses = next(line for line in panel.lines if line.get_marker() == "x")
        assert list(crosses.get_xdata()) == [1, 5]


def test_without_fp16_there_is_nothing_to_say() -> None:
    records = [make_record([make_rank(step_seconds=[1.0] * 3)]), make_record(status="oom", precision="fp16")]
    assert not TOPIC.needs.is_met(Run(records))
