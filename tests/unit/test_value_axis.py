"""Where value axes of dots begin: at 0, unless differences would not be seen, and then a break says so."""

from __future__ import annotations

import math
from itertools import product

import pytest
from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.charts import draw_chart
from hvbench.analysis.show.value_axis import BREAK_NOTE, choose_floor, limit_values
from hvbench.analysis.topics.throughput.plot import plot_throughput
from tests.unit.sample_records import make_rank, make_record


@pytest.mark.parametrize(
    ("values", "top", "floor"),
    [
        ([100.0, 50.0], 100.0, 0.0),  # half as high: from 0
        ([100.0, 10.0], 100.0, 0.0),
        ([100.0, 90.0], 100.0, 90.0 - 1.0),  # 8 % of 10 is less than 1 % of 100
        ([100.0, 60.0], 100.0, 60.0 - 0.08 * 40.0),
        ([100.0, 60.0, -5.0], 100.0, 0.0),  # an interval may go below 0
        ([100.0, math.nan, 60.0], 100.0, 60.0 - 0.08 * 40.0),
        ([90.0], 90.0, 90.0 - 0.9),
        ([], 1.0, 0.0),
        ([0.0], 0.0, 0.0),
    ],
)
def test_an_axis_leaves_out_0_where_all_values_and_intervals_lie_in_a_narrow_band(values, top, floor) -> None:
    assert choose_floor(values, top=top) == pytest.approx(floor)


@pytest.mark.parametrize(("lowest", "is_broken"), [(90.0, True), (20.0, False)])
def test_a_break_is_drawn_and_named(lowest: float, is_broken: bool) -> None:
    figure = Figure()
    panel = figure.subplots()
    panel.plot([1, 2], [lowest, 100.0], "o")
    figure.suptitle("Which?")
    drawn = len(panel.lines)
    limit_values(figure, [panel], [lowest, 100.0], top=100.0)
    assert (len(panel.lines) > drawn) is is_broken
    assert bool(panel.get_ylim()[0] > 0) is is_broken
    assert (BREAK_NOTE in figure.get_suptitle()) is is_broken
    chart = draw_chart("broken", figure)
    assert (BREAK_NOTE in chart.note) is is_broken
    assert ("does not begin at 0 but at" in chart.alternative) is is_broken


def test_throughput_that_differs_by_little_can_be_seen_to_differ() -> None:
    records = [
        make_record(
            [make_rank(rank, step_seconds=[seconds] * 6) for rank in range(2)], framework=name, precision=precision
        )
        for (name, precision), seconds in zip(
            product(("pytorch", "tensorflow"), ("fp32", "bf16")), (0.100, 0.104, 0.102, 0.106), strict=True
        )
    ]
    figure = plot_throughput(Run(records), "precision")
    assert BREAK_NOTE in figure.get_suptitle()
    assert all(panel.get_ylim()[0] > 0 for panel in figure.axes)
