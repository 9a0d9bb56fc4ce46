"""Weak and strong scaling efficiency against hand-computed cases, and which points are put beside each other."""

from __future__ import annotations

import math

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.scaling.efficiency import BASELINES, scaling_efficiencies
from hvbench.analysis.topics.scaling.plot import plot_scaling
from hvbench.analysis.topics.scaling.table import scaling_table
from hvbench.analysis.topics.scaling.topic import TOPIC
from hvbench.records.record import Record
from tests.unit.sample_records import make_ceiling, make_rank, make_record


def launch(
    world_size: int, seconds: float, *, repeat: int = 0, alone: float | None = None, together: float = 1e9, **point
) -> Record:
    """Every rank needs `seconds` for each of two timed steps; the last rank half of it.

    Rank 0 multiplies at `alone` FLOP/s while the others rest, and every rank at `together` while all do.
    """
    times = [[9.0, seconds, seconds]] * (world_size - 1) + [[9.0, seconds, seconds if world_size == 1 else seconds / 2]]
    ceilings = [
        alone
        and make_ceiling(
            together_flops_per_second=[together] * 3,
            alone_flops_per_second=[alone] * 3 if rank == 0 and world_size > 1 else [],
        )
        for rank in range(world_size)
    ]
    ranks = [make_rank(rank, step_seconds=values, ceiling=ceilings[rank]) for rank, values in enumerate(times)]
    return make_record(ranks, repeat=repeat, **{"micro_batch_size": 4, **point})


def found(records: list[Record]) -> dict[tuple[str, int, int], float]:
    """(kind, baseline, ranks) -> efficiency."""
    return {
        (one.kind, one.baseline_world_size, int(one.point["world_size"])): one.estimate.centre
        for one in scaling_efficiencies(point_frame(records))
    }


def test_weak_efficiency_is_the_rate_per_rank_over_that_of_one() -> None:
    """4 samples a rank in 1 s alone, in 1.25 s on 2 ranks, in 2 s on 4: R_n / n = 4, 3.2, 2 samples/s."""
    records = [launch(1, 1.0), launch(2, 1.25), launch(4, 2.0)]
    assert found(records) == {
        ("weak", 1, 2): pytest.approx(0.8),
        ("weak", 1, 4): pytest.approx(0.5),
        ("weak", 2, 4): pytest.approx(0.625),
    }


def test_strong_efficiency_is_the_time_of_one_over_n_times_the_time_of_n() -> None:
    """A global batch of 8: 2 s alone, 1.25 s on 2 ranks, 0.8 s on 4: 2 / (2 x 1.25), 2 / (4 x 0.8), 1.25 / (2 x 0.8)."""
    records = [
        launch(1, 2.0, micro_batch_size=8),
        launch(2, 1.25, micro_batch_size=4),
        launch(4, 0.8, micro_batch_size=2),
    ]
    assert found(records) == {
        ("strong", 1, 2): pytest.approx(0.8),
        ("strong", 1, 4): pytest.approx(0.625),
        ("strong", 2, 4): pytest.approx(0.78125),
    }


def test_accumulation_may_keep_the_global_batch_too() -> None:
    """8 samples a step in both: twice 4 alone in 2 s, once 4 on each of 2 ranks in 1.6 s."""
    records = [launch(1, 2.0, gradient_accumulation_steps=2), launch(2, 1.6)]
    assert found(records) == {("strong", 1, 2): pytest.approx(2.0 / (2 * 1.6))}


def test_the_base_that_accumulates_as_often_comes_first() -> None:
    records = [launch(1, 2.0, gradient_accumulation_steps=2), launch(1, 1.0, micro_batch_size=8), launch(2, 1.0)]
    assert found(records)["strong", 1, 2] == pytest.approx(1.0 / (2 * 1.0))


def test_launches_are_paired_by_repeat_on_the_log_scale() -> None:
    """The machine is twice as slow in repeat 1; the pairs' ratios are 0.8 and 0.5, their geometric mean sqrt(0.4)."""
    alone = [launch(1, seconds, repeat=repeat) for repeat, seconds in enumerate((1.0, 2.0))]
    records = [*alone, *(launch(2, seconds, repeat=repeat) for repeat, seconds in enumerate((1.25, 4.0, 9.0)))]
    (one,) = scaling_efficiencies(point_frame(records))
    assert one.estimate.n == 2  # repeat 2 has no partner
    assert one.estimate.centre == pytest.approx(math.sqrt(0.4))
    half = 12.706204736 * abs(math.log(0.8) - math.log(0.5)) / 2  # t(0.975, 1) x sd / sqrt(2)
    assert one.estimate.high == pytest.approx(math.sqrt(0.4) * math.exp(half))


def test_compression_has_the_uncompressed_process_as_its_baseline() -> None:
    records = [launch(1, 1.0), launch(2, 1.25, compression="fp16")]
    assert found(records) == {("weak", 1, 2): pytest.approx(0.8)}
    records = [launch(2, 1.0), launch(4, 1.25, compression="fp16")]
    assert found(records) == {}  # two ranks do compress: another precision on the wire is another point


@pytest.mark.parametrize("other", [{"framework": "tensorflow"}, {"precision": "bf16"}, {"seed": 1}])
def test_nothing_else_may_differ(other: dict) -> None:
    assert found([launch(1, 1.0), launch(2, 1.0, **other)]) == {}
    assert not TOPIC.needs.is_met(Run([launch(1, 1.0), launch(2, 1.0, **other)]))


def test_a_launch_that_failed_is_no_baseline() -> None:
    lost = make_record(status="oom", world_size=1, micro_batch_size=4)
    assert found([lost, launch(2, 1.0)]) == {}


def test_the_table_names_kind_and_baseline() -> None:
    records = [launch(world, 1.0 + 0.1 * world, repeat=repeat) for world in (1, 2, 4) for repeat in range(2)]
    table = scaling_table(Run(records))
    assert table.header[:7] == ("framework", "fixed", "baseline", "ranks", "n", "efficiency (%)", "95 % interval")
    assert {cell for row in table.cells for cell in row[7:]} == {"–"}  # records without the measurement: empty columns
    assert table.data[["attainable", "of_attainable_low"]].isna().all(axis=None)
    assert [row[1:5] for row in table.cells] == [
        ["batch per rank", BASELINES[1], "2", "2"],
        ["batch per rank", BASELINES[1], "4", "2"],
        ["batch per rank", BASELINES[2], "4", "2"],
    ]
    assert table.cells[0][table.header.index("efficiency (%)")] == f"{100 * 1.1 / 1.2:.1f}"
    assert table.data["efficiency"].tolist() == pytest.approx([1.1 / 1.2, 1.1 / 1.4, 1.2 / 1.4])


def test_efficiency_stands_against_what_the_ranks_reach_together() -> None:
    """One rank's products at 100 alone; two at 60 each reach 1.2 times that, four at 25 each no more than one.

    Against one process: 1.2 / 2 = 60 % and 1 / 4 = 25 %; four against two: (1 / 4) / (1.2 / 2) = 5 / 12.
    Efficiencies are 1 / 2, 1 / 5 and 2 / 5.
    """
    records = [
        launch(1, 1.0, alone=100e9, together=100e9),
        launch(2, 2.0, alone=100e9, together=60e9),
        launch(4, 5.0, alone=100e9, together=25e9),
    ]
    (two, four, four_of_two) = scaling_efficiencies(point_frame(records))
    for one, efficiency, attainable in ((two, 0.5, 0.6), (four, 0.2, 0.25), (four_of_two, 0.4, 5 / 12)):
        assert one.estimate.centre == pytest.approx(efficiency)
        assert one.attainable.centre == pytest.approx(attainable)
        assert one.of_attainable.centre == pytest.approx(efficiency / attainable)
    table = scaling_table(Run(records))
    assert table.header[5::2] == ("efficiency (%)", "attainable (%)", "of attainable (%)")
    assert [row[5::2] for row in table.cells] == [
        ["50.0", "60.0", "83.3"],
        ["20.0", "25.0", "80.0"],
        ["40.0", "41.7", "96.0"],
    ]
    assert {cell for row in table.cells for cell in row[6::2]} == {"n=1"}


def test_attainable_has_the_interval_of_its_own_readings() -> None:
    """Two repeats: 1.2 and 1.6 times one rank, that is 60 and 80 %, and efficiencies of 30 and 40 %, half of it in both."""
    records = [launch(1, 1.0, repeat=repeat) for repeat in range(2)]
    records += [
        launch(2, 1 / share, repeat=repeat, alone=100e9, together=2 * share * 100e9)
        for repeat, share in enumerate((0.3, 0.4))
    ]
    (one,) = scaling_efficiencies(point_frame(records))
    half = 12.706204736 * math.log(4 / 3) / 2
    assert one.attainable.n == 2 and one.attainable.centre == pytest.approx(math.sqrt(0.6 * 0.8))
    assert one.attainable.high == pytest.approx(math.sqrt(0.6 * 0.8) * math.exp(half))
    assert (one.of_attainable.low, one.of_attainable.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_pair_without_the_measurement_leaves_attainable_out() -> None:
    records = [launch(1, 1.0, repeat=repeat) for repeat in range(2)]
    records += [launch(2, 2.0, repeat=0, alone=1e9), launch(2, 2.0, repeat=1)]
    (one,) = scaling_efficiencies(point_frame(records))
    assert one.estimate.n == 2 and one.attainable is one.of_attainable is None


def test_the_plot_has_the_attainable_line_where_it_is_known() -> None:
    for alone, marks in ((None, 1), (2e9, 2)):
        figure = plot_scaling(Run([launch(1, 1.0), launch(2, 2.0, alone=alone)]))
        (panel,) = figure.axes
        assert len(panel.lines) == 1 + marks  # the ideal, the efficiency, and what was attainable
    assert panel.lines[-1].get_ydata().tolist() == [100.0, 50.0]


def test_the_plot_has_a_panel_for_each_kind_and_baseline() -> None:
    records = [launch(world, 1.0, micro_batch_size=batch) for world, batch in ((1, 8), (2, 8), (4, 8), (2, 4), (4, 2))]
    figure = plot_scaling(Run(records))
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert len(titles) == 4 and len(set(titles)) == 4
    assert not TOPIC.needs.is_met(Run([launch(1, 1.0)]))
