"""The forest plot of contrasts: a row a configuration, whose figures are those that were judged."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import TopicFigures, name_answer_plots
from hvbench.analysis.show.charts import draw_chart
from hvbench.analysis.show.forest import (
    MOST_ROWS,
    Effect,
    Forest,
    Side,
    choose_reach,
    choose_ticks,
    draw_forest,
    say_effect,
    show_figures,
    show_ratio,
)
from hvbench.analysis.show.tips import NotedLine
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.topics import frameworks
from hvbench.analysis.topics.convergence import topic as convergence
from hvbench.analysis.topics.convergence.contrast_table import list_lines
from hvbench.analysis.topics.frameworks import framework_table
from tests.unit.sample_records import make_launch, make_rank, make_record, make_stamp


def make_effect(
    label: str = "fp32", value: float = 1.062, low: float | None = 1.039, high: float | None = 1.084, **changes
):
    return Effect(**{"label": label, "value": value, "low": low, "high": high, "n": 5, "call": Call.FASTER, **changes})


def make_forest(*rows: Effect, **changes) -> Forest:
    sides = {"left": Side(words="PyTorch is faster"), "right": Side(words="TensorFlow is faster")}
    texts = {"name": "forest", "title": "Which is faster?", "quantity": "tokens/s, TensorFlow / PyTorch"}
    return Forest(**{**texts, **sides, "rows": rows, **changes})


def notes_of(figure) -> list[str]:
    return [note for line in figure.axes[0].lines if isinstance(line, NotedLine) for note in line.notes]


def test_every_contrast_has_a_row_and_the_mean_comes_first() -> None:
    rows = [make_effect(f"micro-batch {2**power}") for power in range(4)]
    figure = draw_forest(make_forest(*rows, mean=make_effect("mean over all 4", 1.01, 0.99, 1.03, call=Call.EQUAL)))
    assert [note.partition(":")[0] for note in notes_of(figure)] == ["mean over all 4", *(row.label for row in rows)]


def test_long_names_break_into_lines_that_the_figure_has_room_for() -> None:
    one, other = "an exchange every 16 steps", "an exchange at every step"
    sides = {"left": Side(words=f"{other} is faster"), "right": Side(words=f"{one} is faster")}
    texts = {"title": f"{one} or {other}: which is faster, and by how much?", "quantity": f"tokens/s, {one} / {other}"}
    rows = [make_effect(name) for name in ("PyTorch", "TensorFlow")]
    figure, usual = draw_forest(make_forest(*rows, **sides, **texts)), draw_forest(make_forest(*rows))
    figure.draw_without_rendering()
    assert figure.get_figheight() > usual.get_figheight()
    width = figure.bbox.width
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0 and title.x1 <= width
    left, right = (
        text.get_window_extent() for text in figure.axes[0].texts if text.get_text()[0] == "←" or "→" in text.get_text()
    )
    assert left.x0 >= 0 and left.x1 < right.x0 and right.x1 <= width + 1


@pytest.mark.parametrize(
    ("effect", "said", "shown"),
    [
        (
            make_effect(),
            "fp32: 1.062 (95 % interval 1.039 to 1.084, 5 rounds), TensorFlow is faster",
            "+6.2 % (+3.9 to +8.4)",
        ),
        (
            make_effect(value=0.93, low=0.9, high=0.96, call=Call.SLOWER),
            "fp32: 0.930 (95 % interval 0.900 to 0.960, 5 rounds), PyTorch is faster",
            "−7.0 % (−10.0 to −4.0)",
        ),
        (
            make_effect(value=1.005, low=0.99, high=1.02, call=Call.EQUAL),
            "fp32: 1.005 (95 % interval 0.990 to 1.020, 5 rounds), within 3 %",
            "+0.5 % (−1.0 to +2.0)",
        ),
        (
            make_effect(value=1.2, low=None, high=None, n=1, call=Call.OPEN),
            "fp32: 1.200 (1 round, no interval), open",
            "+20.0 %",
        ),
        (
            make_effect(value=2.5, low=2.0, high=3.0),
            "fp32: 2.500 (95 % interval 2.000 to 3.000, 5 rounds), TensorFlow is faster",
            "2.50× (2.00 to 3.00)",
        ),
    ],
)
def test_a_row_says_what_was_judged(effect: Effect, said: str, shown: str) -> None:
    forest = make_forest(effect)
    assert say_effect(effect, forest) == said
    assert show_figures(effect, forest) == shown


def test_who_cannot_see_the_chart_is_told_its_rows() -> None:
    rows = [make_effect("fp32"), make_effect("bf16", 1.2, None, None, n=1, call=Call.OPEN)]
    chart = draw_chart("forest", draw_forest(make_forest(*rows)))
    assert all(say_effect(row, make_forest(*rows)) in chart.alternative for row in rows)


def test_a_difference_of_losses_stands_around_0() -> None:
    forest = make_forest(
        make_effect(value=-0.4, low=-0.5, high=-0.3, call=Call.SLOWER), unit="nats", equal_within=0.03, counted="seed"
    )
    assert choose_reach(forest) == pytest.approx((1.12 * -0.5, 1.12 * 0.045))
    assert "-0.4000 nats (95 % interval -0.5000 to -0.3000, 5 seeds)" in say_effect(forest.rows[0], forest)
    low, high = draw_forest(forest).axes[0].get_xlim()
    assert low < -0.5 < 0 < high


def test_an_axis_shows_all_dots_and_the_band_and_no_interval_presses_them_together() -> None:
    low, high = choose_reach(make_forest(make_effect(value=1.06, low=0.2, high=40.0, call=Call.OPEN)))
    widest = 2.5 * math.log(1.06)
    assert (low, high) == pytest.approx((math.exp(-1.12 * widest), math.exp(1.12 * widest)))
    near = choose_reach(make_forest(make_effect(value=1.001, low=0.999, high=1.003, call=Call.EQUAL)))
    assert near[0] < 1 / 1.03 and near[1] > 1.03
    assert choose_reach(make_forest())  # nothing at all
    assert choose_reach(make_forest(make_effect(value=math.inf, low=None, high=None), make_effect(value=math.nan)))


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.94, 1.09), ["−5 %", "equal", "+5 %"]),
        ((0.8, 1.25), ["−20 %", "−10 %", "equal", "+10 %", "+20 %"]),
        ((0.56, 1.8), ["−40 %", "−20 %", "equal", "+20 %", "+40 %", "+80 %"]),  # +60 % would stand on them
        ((0.18, 5.5), ["0.2×", "0.5×", "equal", "2×", "5×"]),
    ],
)
def test_ticks_are_round(ends: tuple[float, float], ticks: list[str]) -> None:
    places = choose_ticks(*ends)
    assert 1 in [round(place, 9) for place in places] and len(places) <= 7
    assert all(ends[0] - 1e-9 <= place <= ends[1] + 1e-9 for place in places)
    assert [show_ratio(place, is_factor=ends[1] / ends[0] > 4) for place in places] == ticks


def test_a_family_too_large_for_a_picture_says_how_much_of_it_is_drawn() -> None:
    rows = [make_effect(f"learning rate {number}") for number in range(MOST_ROWS + 3)]
    figure = draw_forest(make_forest(*rows))
    assert len(notes_of(figure)) == MOST_ROWS
    assert f"first {MOST_ROWS} of {MOST_ROWS + 3} configurations" in figure.get_suptitle()


def test_a_called_row_has_the_look_of_the_faster_side_and_an_open_one_is_hollow() -> None:
    sides = {"left": Side(words="left", colour="#aa0000"), "right": Side(words="right", colour="#0000aa", marker="s")}
    right, left = make_effect(), make_effect(value=0.9, low=0.8, high=0.95, call=Call.SLOWER)
    still = replace(right, call=Call.OPEN)
    figure = draw_forest(make_forest(right, left, still, **sides))
    marks = [line for line in figure.axes[0].lines if isinstance(line, NotedLine)]
    assert [mark.get_color() for mark in marks][:2] == ["#0000aa", "#aa0000"]
    assert marks[0].get_marker() == "s"
    assert [mark.get_markerfacecolor() == "#ffffff" for mark in marks] == [False, False, True]


def make_twins(*, is_proven: bool = True) -> Run:
    """Two configurations in both frameworks, two launches each."""
    other = {"pytorch": "tensorflow", "tensorflow": "pytorch"}
    ranks = [make_rank(rank, step_seconds=[0.1] * 4) for rank in range(2)]
    return Run(
        [
            make_record(
                ranks,
                framework=name,
                precision=precision,
                micro_batch_size=batch,
                repeat=repeat,
                parity=make_stamp(other[name]) if is_proven else None,
            )
            for name, (precision, batch), repeat in product(other, (("fp32", 4), ("bf16", 8)), range(2))
        ]
    )


def test_frameworks_are_contrasted_beside_the_answer_in_every_configuration_that_both_ran() -> None:
    run = make_twins()
    (forest,) = frameworks.TOPIC.contrasts(run)
    assert [row.label for row in forest.rows] == ["micro-batch 4, fp32", "micro-batch 8, bf16"]
    assert (forest.left.words, forest.right.words) == ("PyTorch is faster", "TensorFlow is faster")
    table = framework_table(run)
    for row, cells in zip(forest.rows, table.cells, strict=True):
        assert cells[table.header.index("TensorFlow / PyTorch")] == f"{row.value:.3f}"
        assert cells[table.header.index("n")] == str(row.n)
    parts = [TopicFigures(topic=frameworks.TOPIC, figures={}, contrasts=(forest.name,))]
    assert name_answer_plots(run, parts) == ("contrast_tensorflow_pytorch",)
    assert frameworks.TOPIC.contrasts(make_twins(is_proven=False)) == []


def test_what_was_learned_is_drawn_as_its_table_has_it() -> None:
    """In nats; frameworks that were not proven to do the same work are in the table, and not drawn."""
    choices = product(("pytorch", "tensorflow"), ("fp32", "bf16"))
    run = Run([make_launch({"framework": name, "precision": value}, evaluate_every=4) for name, value in choices])
    (forest,) = convergence.TOPIC.contrasts(run)
    (line,) = [line for line in list_lines(run) if line.choice == "bf16"]
    assert [(row.label, row.value, row.n) for row in forest.rows] == [
        (line.choice, line.loss.difference, line.loss.seeds)
    ]
    assert (forest.unit, forest.title) == ("nats", "What does precision do to the loss?")
