"""Figures: which are drawn, that nothing is hidden, and that the same records give the same bytes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import STYLES, join_curves, render_figure, save
from hvbench.analysis.topics.throughput.plot import plot_throughput
from tests.unit.sample_pages import draw_all
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart, make_rank, make_record

FRAMEWORKS = ("pytorch", "tensorflow")


def texts_of(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


def test_only_axes_that_vary_are_drawn() -> None:
    assert list(draw_all(make_quickstart())) == [
        "throughput_by_micro_batch_size",
        "throughput_by_gradient_accumulation_steps",
        "throughput_by_precision",
        "throughput_by_compression",
        "step_seconds",
    ]
    assert list(draw_all(make_convergence())) == ["throughput_by_framework", "loss_curves", "step_seconds"]
    assert list(draw_all([make_launch({"framework": "pytorch"})])) == ["step_seconds"]
    assert draw_all([]) == {}


def test_every_launch_is_a_dot() -> None:
    records = [
        make_launch({"framework": name, "micro_batch_size": batch}, repeat=repeat)
        for name in FRAMEWORKS
        for batch in (4, 8)
        for repeat in range(3)
    ]
    run = Run(records)
    figure = plot_throughput(run, "micro_batch_size")
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    drawn = np.sort(np.concatenate([line.get_ydata() for line in dots]))
    assert drawn == pytest.approx(np.sort(run.points["tokens_per_second"]))


def test_a_lost_point_is_a_cross_with_its_status_and_breaks_the_line() -> None:
    records = [make_launch({"framework": "pytorch", "micro_batch_size": batch}) for batch in (2, 8)]
    records.append(make_record(status="oom", model="small", micro_batch_size=4))
    run = Run(records)
    figure = plot_throughput(run, "micro_batch_size")
    assert "oom" in texts_of(figure)
    assert any(line.get_marker() == "x" for line in figure.axes[0].lines)
    centre = next(line for line in figure.axes[0].lines if line.get_marker() == STYLES["pytorch"].marker)
    assert list(np.isnan(centre.get_ydata())) == [False, True, False]


def test_a_panel_compares_at_least_two_values() -> None:
    """In a sparse suite some configurations have one compression only: there is nothing to compare there."""
    choices = [("fp32", "none", 1), ("fp32", "fp16", 1), ("bf16", "none", 1), ("fp32", "none", 2), ("bf16", "fp16", 4)]
    names = ("precision", "compression", "gradient_accumulation_steps")
    records = [make_launch({"framework": "pytorch", **dict(zip(names, choice, strict=True))}) for choice in choices]
    figures = draw_all(records)
    panels = figures["throughput_by_compression"].axes
    assert [panel.get_title(loc="left") for panel in panels] == ["fp32, accumulation 1"]
    assert len(figures["throughput_by_gradient_accumulation_steps"].axes) == 1
    alone = [
        make_launch({"framework": "pytorch", "precision": p, "seed": seed}) for p, seed in (("fp32", 0), ("bf16", 1))
    ]
    assert list(draw_all(alone)) == ["step_seconds"]


def test_axes_carry_units_and_titles_ask() -> None:
    for records in (make_quickstart(), make_convergence()):
        for name, figure in draw_all(records).items():
            assert figure.get_suptitle().splitlines()[0].endswith("?"), name
            unit = {"loss_curves": "nats per token", "step_seconds": "(s)"}.get(name, "tokens/s")
            assert unit in figure.get_supylabel()


def test_frameworks_differ_by_more_than_colour() -> None:
    looks = [(style.colour, style.marker, style.line) for style in STYLES.values()]
    assert all(len(set(values)) == len(looks) for values in zip(*looks, strict=True))


def test_only_lost_points_still_make_a_figure() -> None:
    records = [
        make_record(status="oom", framework=name, micro_batch_size=batch) for name in FRAMEWORKS for batch in (4, 8)
    ]
    figures = draw_all(records)
    assert list(figures) == ["throughput_by_micro_batch_size"]
    assert "no launch ended in ok" in figures["throughput_by_micro_batch_size"].get_suptitle()


def test_a_diverged_launch_keeps_its_curve() -> None:
    rank = make_rank(step_seconds=[1.0] * 40, loss=[5.0] * 39 + [None])
    records = [
        make_record([rank], status="diverged"),
        make_record([make_rank(step_seconds=[1.0] * 40)], framework="tensorflow"),
    ]
    assert "diverged" in texts_of(draw_all(records)["loss_curves"])


def test_a_hostile_value_is_only_a_label() -> None:
    records = [make_launch({"framework": "pytorch", "data": data}) for data in ("stdlib", "$\\frac{<b>\u4e2d\u200f")]
    svg = render_figure(draw_all(records)["step_seconds"], kind="svg").decode()
    assert "<b>" not in svg


def test_too_many_configurations_are_counted_not_drawn() -> None:
    records = [make_launch({"framework": "pytorch", "seed": seed}, steps=4) for seed in range(30)]
    assert "first 24 of 30" in draw_all(records)["step_seconds"].get_suptitle()


def test_launches_of_a_framework_share_a_line_that_breaks_between_them() -> None:
    steps = pd.Series([1, 2, 1, 2, 3])
    x, y = join_curves(steps, steps * 10.0, launch=pd.Series([4, 4, 7, 7, 7]))
    assert x.tolist() == [1, 2, 2, 1, 1, 2, 3]
    assert str(y.tolist()) == "[10.0, 20.0, nan, nan, 10.0, 20.0, 30.0]"


@pytest.mark.parametrize("name", ["step_seconds", "loss_curves"])
def test_a_panel_has_as_many_artists_for_a_hundred_launches_as_for_two(name: str) -> None:
    counts = []
    for repeats in (2, 100):
        (panel, *_) = draw_all(make_convergence(repeats=repeats))[name].axes
        counts.append(len(panel.get_children()))
    assert counts[0] == counts[1]


def test_the_ends_of_many_lost_launches_are_counted() -> None:
    losses = [5.0] * 39 + [None]
    records = [
        make_record([make_rank(step_seconds=[1.0] * 40, loss=losses)], status="diverged", repeat=repeat)
        for repeat in range(100)
    ]
    figure = draw_all(records)["loss_curves"]
    assert "diverged, and 88 more" in texts_of(figure)
    assert [line.get_marker() for line in figure.axes[0].lines].count("x") == 12


def test_files_are_the_same_for_the_same_records(tmp_path) -> None:
    contents = []
    for folder in ("a", "b"):
        paths = save(draw_all(make_convergence())["loss_curves"], tmp_path / folder / "loss_curves")
        assert [path.suffix for path in paths] == [".svg", ".png"]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0][0]
