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
from tests.unit.sample_records import make_rank, make_record


def launch(world_size: int, seconds: float, *, repeat: int = 0, **point) -> Record:
    """Every rank needs `seconds` for each of two timed steps; the last rank half of it."""
    times = [[9.0, seconds, seconds]] * (world_size - 1) + [[9.0, seconds, seconds if world_size == 1 else seconds / 2]]
    ranks = [make_rank(rank, step_seconds=values) for rank, values in enumerate(times)]
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
    assert table.header == ("framework", "fixed", "baseline", "ranks", "n", "efficiency (%)", "95 % interval")
    assert [row[1:5] for row in table.cells] == [
        ["batch per rank", BASELINES[1], "2", "2"],
        ["batch per rank", BASELINES[1], "4", "2"],
        ["batch per rank", BASELINES[2], "4", "2"],
    ]
    assert table.cells[0][table.header.index("efficiency (%)")] == f"{100 * 1.1 / 1.2:.1f}"
    assert table.data["efficiency"].tolist() == pytest.approx([1.1 / 1.2, 1.1 / 1.4, 1.2 / 1.4])


def test_the_plot_has_a_panel_for_each_kind_and_baseline() -> None:
    records = [launch(world, 1.0, micro_batch_size=batch) for world, batch in ((1, 8), (2, 8), (4, 8), (2, 4), (4, 2))]
    figure = plot_scaling(Run(records))
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert len(titles) == 4 and len(set(titles)) == 4
    assert not TOPIC.needs.is_met(Run([launch(1, 1.0)]))
