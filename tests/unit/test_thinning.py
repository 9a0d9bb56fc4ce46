"""Thinning: which marks stay, exactly; that no extreme is lost; and that the figure says what was left out."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.analysis.show.panels import Cell, draw_panels
from hvbench.analysis.show.thinning import (
    MAX_MARKS,
    MAX_PANEL_MARKS,
    VERTICES_PER_MARK,
    choose_extremes,
    share_out,
    thin_figure,
)


@pytest.mark.parametrize(
    ("values", "most", "kept"),
    [
        ([3, 1, 2], 4, [0, 1, 2]),
        ([0, 5, 1, 2, 9, 3, 4, 0], 4, [0, 2, 4, 7]),
        ([0, 5, 1, 2, 9, 3, 4, 0], 6, [0, 1, 2, 4, 5, 7]),
        ([7] * 10, 4, [0, 1, 9]),  # all the same: the first is the lowest and the highest
        ([0, 1, np.nan, 2, 3, 4], 8, [0, 1, 2, 3, 4, 5]),
        ([0, 5, np.nan, np.nan, 1, 2, 0], 4, [0, 1, 2, 4, 6]),  # the line still breaks
    ],
)
def test_of_each_stretch_the_lowest_and_the_highest_stay(values: list[float], most: int, kept: list[int]) -> None:
    assert choose_extremes(np.array(values, dtype=float), most=most).tolist() == kept


@pytest.mark.parametrize("size", [801, 20_003, 83_350])
def test_there_are_at_most_so_many_and_no_extreme_is_lost(size: int) -> None:
    values = np.random.default_rng(0).lognormal(size=size)
    kept = choose_extremes(values, most=800)
    assert 700 < kept.size <= 800 and (np.diff(kept) > 0).all()
    assert {0, size - 1, int(values.argmin()), int(values.argmax())} <= set(kept.tolist())
    assert (kept == choose_extremes(values, most=800)).all()


@pytest.mark.parametrize(
    ("wanted", "total", "cap"),
    [([10, 10], 40, 20), ([10, 1000], 110, 100), ([50, 50, 50], 90, 30), ([], 10, 0), ([5, 7, 1000, 1000], 112, 50)],
)
def test_a_cap_takes_from_those_who_want_most(wanted: list[int], total: int, cap: int) -> None:
    found = share_out(wanted, total=total)
    assert sum(min(each, found) for each in wanted) <= total
    assert found >= cap if sum(wanted) <= total else found == cap


def draw(*launches: int, panels: int = 1, marker: str = "o", linestyle: str = "none"):
    """A figure in which each panel has one line of so many steps for each of `launches`."""
    generator = np.random.default_rng(0)
    with draw_panels([[Cell(title="", chosen={})] * panels], width=3.0, height=2.0) as (figure, found):
        figure.suptitle("Is it steady?")
        for panel, _ in found:
            for steps in launches:
                panel.plot(range(1, steps + 1), generator.lognormal(size=steps), marker=marker, linestyle=linestyle)
    return figure


def count(figure) -> list[int]:
    return [sum(len(line.get_ydata()) for line in panel.lines) for panel in figure.axes]


def test_few_marks_are_all_drawn() -> None:
    figure = draw(300, 400, panels=2)
    assert count(figure) == [700, 700] and figure.get_suptitle() == "Is it steady?"


def test_many_steps_are_thinned_and_the_title_says_so() -> None:
    figure = draw(20_000)
    (drawn,) = count(figure)
    assert 0.9 * MAX_PANEL_MARKS < drawn <= MAX_PANEL_MARKS
    assert figure.get_suptitle().splitlines() == [
        "Is it steady?", f"{drawn} of 20,000 marks drawn, 1 in 25", "kept: the lowest and highest of their neighbours",
    ]  # fmt: skip
    before = figure.get_suptitle()
    thin_figure(figure)
    assert count(figure) == [drawn] and figure.get_suptitle() == before


def test_a_short_line_beside_a_long_one_stays_whole() -> None:
    figure = draw(50, 5000)
    assert len(figure.axes[0].lines[0].get_ydata()) == 50


def test_a_figure_of_many_panels_has_no_more_marks_than_one() -> None:
    drawn = count(draw(2000, panels=10))
    assert sum(drawn) <= MAX_MARKS and min(drawn) > 0.9 * MAX_MARKS / 10


def test_launches_that_share_a_line_are_thinned_along_the_axis() -> None:
    """Two launches one after the other: at every step the lower and the higher one of the neighbourhood stay."""
    with draw_panels([[Cell(title="", chosen={})]], width=3.0, height=2.0) as (figure, panels):
        steps = np.arange(1000)
        panels[0][0].plot(np.tile(steps, 2), np.repeat([1.0, 2.0], 1000), "o")
    (line,) = figure.axes[0].lines
    x, y = line.get_data()
    for value in (1.0, 2.0):
        assert 0 <= min(x[y == value]) < 10 and 990 < max(x[y == value]) < 1000
        assert np.diff(x[y == value]).max() < 10


def test_curves_are_shortened_and_too_many_of_them_left_out() -> None:
    figure = draw(20_000, marker="", linestyle="-")
    assert count(figure)[0] <= VERTICES_PER_MARK * MAX_PANEL_MARKS
    assert figure.get_suptitle() == "Is it steady?"  # as one sees it, the whole curve is there
    with draw_panels([[Cell(title="", chosen={})]], width=3.0, height=2.0) as (figure, panels):
        figure.suptitle("Is it steady?")
        values = np.tile([*np.linspace(5, 3, 50), np.nan], 2000)
        panels[0][0].plot(np.tile(np.arange(51), 2000), values)
    assert figure.get_suptitle() == "Is it steady?\n400 of 2,000 curves drawn, 1 in 5"
    y = figure.axes[0].lines[0].get_ydata()
    assert y.size <= VERTICES_PER_MARK * MAX_PANEL_MARKS and np.isnan(y).sum() >= 399
