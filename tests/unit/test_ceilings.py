"""Tables of ceilings and utilization, and the sentence on a slow library."""

from __future__ import annotations

import csv
import io

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.quality import describe_unmeasured_ranks
from hvbench.analysis.report.terminal import render_terminal
from hvbench.analysis.show.render import render_csv, render_text
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.ceilings import TOPIC, ceiling_advice, ceiling_tables, describe_slow_libraries
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.records.record import Record
from tests.unit.sample_pages import draw_all
from tests.unit.sample_records import make_ceiling, make_rank, make_record

PYTORCH = (40e9, 41e9, 42e9)  # of one rank, a launch each
TENSORFLOW = (100e9, 99e9, 101e9)


def launch(framework: str, rate: float, *, generation: int, **point_fields) -> Record:
    """Two ranks with the same ceiling."""
    is_emulated = point_fields.pop("is_emulated", False)
    ceiling = make_ceiling(rate, is_emulated=is_emulated)
    ranks = [make_rank(rank, step_seconds=[1.0, 1.0, 1.0], ceiling=ceiling) for rank in range(2)]
    return make_record(ranks, framework=framework, generation=generation, repeat=generation, **point_fields)


def both(*, pytorch=PYTORCH, tensorflow=TENSORFLOW, **point_fields) -> list[Record]:
    sides = (("pytorch", pytorch), ("tensorflow", tensorflow))
    return [
        launch(name, rate, generation=2 * index + side, **point_fields)
        for side, (name, rates) in enumerate(sides)
        for index, rate in enumerate(rates)
    ]


def tables_of(records: list[Record]) -> dict[str, Table]:
    return {table.name: table for table in ceiling_tables(Run(records))}


def sentences_of(records: list[Record]) -> list[str]:
    return describe_slow_libraries(Run(records))


def test_no_ceiling_no_table() -> None:
    record = make_record([make_rank(step_seconds=[1.0, 1.0])])
    assert not TOPIC.needs.is_met(Run([record])) and not TOPIC.needs.is_met(Run([]))
    assert sentences_of([record]) == sentences_of([]) == []


def test_every_figure_has_n_and_an_interval() -> None:
    for table in tables_of(both()).values():
        assert [row[table.header.index("n")] for row in table.cells] == ["3", "3"]
        figures = [i for i, is_number in enumerate(table.is_number) if is_number and i > table.header.index("n")]
        figures = [
            i for i in figures if table.header[i] != "all-reduce on the wire (MiB)"
        ]  # what was sent, and no estimate
        for figure, interval in zip(figures[::2], figures[1::2], strict=True):
            assert table.header[interval].startswith("95 % interval")
            for row in table.cells:
                low, high = (float(end.replace(",", "")) for end in row[interval].split(" to "))
                assert low <= float(row[figure].replace(",", "")) <= high


def test_ceilings_are_sums_over_ranks_and_geometric_means_over_launches() -> None:
    table = tables_of(both(pytorch=(20e9, 80e9)))["ceilings"]
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["framework"], row["best product (GFLOP/s)"]) == ("pytorch", "80.00")
    assert row["model's products (GFLOP/s)"] == "60.00"
    assert (row["memory (GB/s)"], row["all-reduce busbw (GB/s)"]) == ("20.00", "1.000")
    assert row["all-reduce on the wire (MiB)"] == "0.003906"


def test_points_that_share_workers_share_a_measurement() -> None:
    """One set of workers trained two accumulations: the ceiling was measured once."""
    records = [
        launch("pytorch", 40e9, generation=generation, gradient_accumulation_steps=steps)
        for generation in (0, 1)
        for steps in (1, 2)
    ]
    tables = tables_of(records)
    assert [row[tables["ceilings"].header.index("n")] for row in tables["ceilings"].cells] == ["2"]
    assert [row[tables["utilization"].header.index("n")] for row in tables["utilization"].cells] == ["2", "2"]
    assert "status" not in tables["ceilings"].header


def test_what_launches_took_from_an_earlier_one_counts_once() -> None:
    """Five launches: two read everything, three took what two earlier ones had read; each read the best product."""
    taken = (
        None,
        None,
        "2026-01-02T03:04:05.678+00:00",
        "2026-01-02T03:04:05.678+00:00",
        "2026-01-03T03:04:05.678+00:00",
    )
    records = []
    for generation, read_at in enumerate(taken):
        ceiling = make_ceiling(40e9 + generation * 1e9, read_at=read_at)
        ranks = [make_rank(rank, step_seconds=[1.0, 1.0], ceiling=ceiling) for rank in range(2)]
        records.append(make_record(ranks, framework="pytorch", generation=generation, repeat=generation))
    tables = tables_of(records)
    assert [row[tables["ceilings"].header.index("n")] for row in tables["ceilings"].cells] == ["4"]
    assert [row[tables["utilization"].header.index("n")] for row in tables["utilization"].cells] == ["5"]
    assert any(
        note.startswith("3 launches read the best product alone") and "2026-01-02 03:04 to 2026-01-03 03:04 UTC" in note
        for note in tables["ceilings"].notes
    )
    assert not any("earlier launches on this" in note for note in tables_of(records[:2])["ceilings"].notes)


def test_csv_holds_what_ceilings_depend_on_and_nothing_else() -> None:
    row = next(csv.DictReader(io.StringIO(render_csv(tables_of(both())["ceilings"]))))
    assert {"framework", "precision", "gemm", "micro_batch_size", "launches_ok"} <= set(row)
    assert float(row["gemm_flops_per_second_low"]) < float(row["gemm_flops_per_second"]) < 84e9
    assert not {"seed", "gradient_accumulation_steps", "point_id", "status"} & set(row)


def together(*factors: float, world_size: int = 2, **fields) -> list[Record]:
    """A launch for each factor: rank 0 alone multiplies at 100 GFLOP/s, all ranks together at as many times that."""
    records = []
    for repeat, factor in enumerate(factors):
        each = [factor * 100e9 / world_size] * 3
        ceilings = [
            make_ceiling(together_flops_per_second=each, alone_flops_per_second=[] if rank else [100e9] * 3)
            for rank in range(world_size)
        ]
        ranks = [make_rank(rank, step_seconds=[1.0, 1.0], ceiling=one) for rank, one in enumerate(ceilings)]
        records.append(make_record(ranks, repeat=repeat, generation=repeat, **fields))
    return records


def test_what_ranks_reach_together_is_said_with_its_interval() -> None:
    """1.2 and 1.2 times one rank; 1 and 4 times, whose geometric mean is 2, without and with an interval."""
    records = [*together(1.2, 1.2, framework="pytorch"), *together(2.0, framework="tensorflow")]
    records += together(2.0, world_size=4, framework="tensorflow")
    assert ceiling_advice(Run(records)) == [
        "2 ranks together reach 1.20 times one rank's fp32 matrix products in PyTorch (95 % interval 1.20 to 1.20, n = 2), "
        "2.00 times in TensorFlow (n = 1, no interval).",
        "4 ranks together reach 2.00 times one rank's fp32 matrix products in TensorFlow (n = 1, no interval).",
    ]
    assert [line for line in render_terminal(Run(records)) if "ranks together" in line] == ceiling_advice(Run(records))
    table = tables_of(records)["ceilings"]
    column = table.header.index("all ranks / one alone")
    assert [row[column] for row in table.cells] == ["1.200", "2.000", "2.000"]


def test_rounds_are_compared_one_by_one() -> None:
    """The machine was four times as fast in the second round: 1.2 times in both."""
    ranks = [
        make_rank(
            rank, step_seconds=[1.0, 1.0],
            ceiling=make_ceiling(together_flops_per_second=[6e9, 24e9], alone_flops_per_second=alone),
        )
        for rank, alone in enumerate(([10e9, 40e9], []))
    ]  # fmt: skip
    assert point_frame([make_record(ranks)]).iloc[0]["ranks_together_ratio"] == pytest.approx(1.2)
    assert point_frame([make_record(ranks[:1])])["ranks_together_ratio"].isna().all()


def test_a_run_that_did_not_measure_it_says_so() -> None:
    """One line for ranks of which nobody knows it; none for a single rank, nor where any launch measured it."""
    old = [make_record([make_rank(rank, step_seconds=[1.0, 1.0]) for rank in range(ranks)]) for ranks in (1, 2, 4)]
    (line,) = describe_unmeasured_ranks(point_frame(old))
    assert line.startswith("What 2, 4 ranks reach together was not measured (ceilings = true does)")
    assert describe_unmeasured_ranks(point_frame([old[0]])) == describe_unmeasured_ranks(point_frame([])) == []
    assert "2, 4" not in " ".join(describe_unmeasured_ranks(point_frame([*old, *together(1.5)])))


def test_more_points_of_a_set_of_workers_make_no_library_faster() -> None:
    """Readings of 90 and 110 in each of TensorFlow's sets count as their mean, not as the larger."""
    records = both(pytorch=(60e9, 60e9, 60e9), tensorflow=(90e9, 90e9, 90e9))
    records += [launch("tensorflow", 110e9, generation=2 * index + 1, micro_batch_size=4) for index in range(3)]
    (sentence,) = sentences_of(records)
    assert (
        "reach 60 % (95 % interval 60 to 60 %, n = 3)" in sentence
    )  # 60 / sqrt(90 x 110) = 0.603, not 60 / 110 = 0.545


def test_a_slow_library_is_named_with_its_interval_and_a_remedy() -> None:
    (sentence,) = sentences_of(both(gemm="default"))
    assert sentence.startswith("On 2 ranks PyTorch's fp32 matrix products reach 41 % (95 % interval 3")
    assert sentence.endswith("n = 3) of TensorFlow's rate; on a CPU try gemm=onednn.")


def test_where_the_library_was_chosen_by_its_speed_no_other_is_advised() -> None:
    (sentence,) = sentences_of(both())
    assert sentence.endswith("of TensorFlow's rate.")


def test_what_onednn_reaches_is_told_where_it_was_measured() -> None:
    records = both() + [launch("pytorch", 90e9 + i, generation=6 + i, gemm="onednn") for i in range(3)]
    (sentence,) = sentences_of(records)
    assert "and with gemm=onednn 90 % (95 % interval" in sentence and "try" not in sentence


def test_tensorflow_has_no_other_library() -> None:
    (sentence,) = sentences_of(both(pytorch=TENSORFLOW, tensorflow=PYTORCH))
    assert sentence.startswith("On 2 ranks TensorFlow's fp32") and "onednn" not in sentence


@pytest.mark.parametrize(
    "pytorch",
    [
        (79e9, 85e9, 90e9),  # 84 %
        (60e9, 80e9, 99e9),  # 78 %, up to well over 80 %
        (40e9,),  # one launch proves nothing
    ],
)
def test_intervals_that_do_not_support_it_are_silent(pytorch: tuple[float, ...]) -> None:
    assert sentences_of(both(pytorch=pytorch)) == []


def test_an_emulated_precision_repeats_nothing() -> None:
    emulated = both(precision="bf16", is_emulated=True)
    (sentence,) = sentences_of(emulated)
    assert "bf16 (emulated) matrix products" in sentence and "onednn" not in sentence
    (sentence,) = sentences_of(both() + emulated)
    assert "fp32" in sentence


def test_emulated_precisions_say_so_in_tables_and_plots() -> None:
    records = both() + both(precision="bf16", is_emulated=True)
    for table in (throughput_table(Run(records)), *tables_of(records).values()):
        column = table.header.index("precision")
        assert [row[column] for row in table.cells] == ["fp32", "bf16 (emulated)"] * 2
    figures = draw_all(records)
    labels = [
        tick.get_text().replace("\n", " ") for tick in figures["throughput_by_precision"].axes[0].get_xticklabels()
    ]
    assert labels == ["fp32", "bf16 (emulated)"]
    assert "bf16 (emulated)" in {panel.get_title(loc="left") for panel in figures["step_seconds"].axes}
    alone = throughput_table(Run(both(precision="bf16", is_emulated=True)))
    assert alone.constants["precision"] == "bf16 (emulated)" and "(emulated)" in render_text(alone)
