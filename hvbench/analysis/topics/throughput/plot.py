"""Throughput by axis, a plot each. Every launch stays visible, failures are marked.

A figure's title is the question that it answers, and a question that the records cannot answer has no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.analysis.frame.axes import is_own, order_values, plain_name
from hvbench.analysis.frame.metrics import Speed
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import show_axis
from hvbench.analysis.show.panels import (
    MAX_COLUMNS,
    MAX_SMALL_PANELS,
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    count_statuses,
    describe_choice,
    draw_panels,
    emulated_precisions,
    finite_max,
    label_text,
    legend_mark,
    list_frameworks,
    make_key,
    mark_ends,
    place_beside,
    shift_points,
    wrap_label,
)
from hvbench.analysis.show.tables import is_number
from hvbench.analysis.show.value_axis import limit_values
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.estimates import summary_of, with_interval

THROUGHPUT_AXES = {  # axis: (the plot's question, the label of its x axis)
    "micro_batch_size": ("Does throughput rise with the micro-batch?", "micro-batch (samples)"),
    "sequence_length": ("What do longer sequences do to throughput?", "sequence length (tokens)"),
    "gradient_accumulation_steps": ("What does gradient accumulation buy?", "accumulation (backward passes)"),
    "precision": ("What does lower precision buy?", "precision"),
    "compression": ("Does compressing the all-reduce pay?", "compression"),
    "world_size": ("Does throughput rise with the ranks?", "ranks"),
    "model": ("How does throughput fall with the model's size?", "model"),
    "strategy": ("Which way of exchanging gradients is fastest?", "strategy"),
    "reduction": ("What does adasum cost?", "reduction"),
    "controller": ("Gloo or MPI?", "controller"),
    "framework": ("Which framework is faster?", ""),
}


def describe_axis(axis: str) -> tuple[str, str]:
    """The plot's question and the label of its x axis; of a script's own axis hvbench knows the name alone."""
    return THROUGHPUT_AXES.get(axis) or (f"What does {plain_name(axis)} do to the speed?", plain_name(axis))


DRAWN = "drawn"  # the column of what is drawn
MAX_INCHES = 16.0  # of a panel's width
ROW_AXES = ("precision", "compression", "gradient_accumulation_steps", "micro_batch_size")


def plot_swept_axes(run: Run) -> dict[str, Figure]:
    """The plots of every axis that varies; the frameworks are compared in all of them."""
    known = [axis for axis in THROUGHPUT_AXES if axis in run.other_axes]
    return plot_axes(run, [*filter(is_own, run.other_axes), *known])


def plot_axes(run: Run, axes: Sequence[str]) -> dict[str, Figure]:
    """File stem -> throughput against each of `axes` at which any two points can be compared."""
    drawn = [axis for axis in axes if _choose_panels(run, axis)]
    return {f"throughput_by_{plain_name(axis)}": plot_throughput(run, axis) for axis in drawn}


def plot_throughput(run: Run, axis: str) -> Figure:
    """Tokens per second of all ranks, or the time of a step, against `axis`, a panel per combination of other axes that has several values."""
    return plot_figure(run, axis, run.speed, question=describe_axis(axis)[0])


def plot_figure(run: Run, axis: str, speed: Speed, *, question: str) -> Figure:
    """The same of any figure of a launch; `question` is the plot's."""
    points, summary = (
        _scale_speeds(run.points_with(speed.column), speed),
        _scale_speeds(_pick_columns(run, speed), speed),
    )
    x_label = describe_axis(axis)[1]
    places = _place_values(points, axis)
    gap = float(min(np.diff(sorted(places.values())), default=1.0))
    frameworks = list_frameworks(points)
    repeated = bool((summary["launches_ok"] > 1).any())
    emulated = emulated_precisions(points)
    cells, note = _arrange(_choose_panels(run, axis), emulated=emulated)
    width = min(MAX_INCHES, max(2.5, 6.5 / len(cells[0]), 0.4 * len(places)))
    ticked = list(places)[:: -(-len(places) // int(MAX_INCHES / 0.4))]  # a tick needs 0.4 inches
    with draw_panels(cells, width=width, height=2.4, x_label=x_label) as (figure, panels):
        for panel, chosen in panels:
            for index, framework in enumerate(frameworks):
                # Frameworks stand a little apart and launches beside their centre, so that nothing hides anything.
                side = 0.0 if axis == "framework" else place_beside(index, of=len(frameworks))
                mine = {"framework": framework} | chosen
                _draw_centres(panel, choose_rows(summary, mine), axis=axis, places=places, side=side)
                _draw_launches(panel, choose_rows(points, mine), axis=axis, places=places, side=side)
            labels = [
                STYLES[value].label
                if axis == "framework"
                else wrap_label(label_text(show_axis(axis, value, is_emulated=value in emulated)))
                for value in ticked
            ]
            panel.set_xticks([places[value] for value in ticked], labels)
            panel.set_xlim(min(places.values()) - 0.45 * gap, max(places.values()) + 0.45 * gap)
            panel.yaxis.set_major_formatter(FuncFormatter(_show_tick))
        has_bars = repeated and bool(summary[f"{DRAWN}_low"].notna().any())
        bars = f"; bars: {CONFIDENCE * 100:g} % interval over launches" if has_bars else ""
        figure.suptitle(f"{question}\n{_count_launches(summary)}{bars}{note}")
        _limit_rates(figure, [panel for panel, _ in panels], points[DRAWN], summary)
        figure.supylabel(speed.title)
        extra = [legend_mark("one launch", marker=".")] if repeated else []
        if (points["status"] != "ok").any():
            extra.append(legend_mark("did not end in ok", marker="x"))
        add_legend(figure, frameworks if axis != "framework" else [], extra)
    return figure


def _show_tick(value: float, _: object) -> str:
    """`2,500`, or `6.95` where values are small."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _limit_rates(figure: Figure, panels: Sequence[Axes], rates: pd.Series, summary: pd.DataFrame) -> None:
    """The same value axis for all panels, since they are read against each other."""
    highest = finite_max(rates)
    if not highest:
        panels[0].set_ylim(0, 1)
        panels[0].set_yticks([])
        return
    # An interval of two launches may be ten times as high as the launches; it may leave the picture.
    highest_bar = finite_max(summary[f"{DRAWN}_high"]) or 0.0
    shown = pd.concat([rates, summary[DRAWN], summary[f"{DRAWN}_low"]]).astype("float64")
    limit_values(figure, panels, shown, top=max(highest, min(highest_bar, 1.5 * highest)))


def _pick_columns(run: Run, speed: Speed) -> pd.DataFrame:
    """What is drawn of the summary: the axes that vary, the speed and its interval."""
    figures = with_interval(speed.column)
    return summary_of(run)[list(dict.fromkeys([*run.varying_axes, "framework", "launches_ok", *figures]))].copy()


def _scale_speeds(frame: pd.DataFrame, speed: Speed) -> pd.DataFrame:
    """The frame with its speeds, and their intervals, as columns `DRAWN` in the unit that is shown."""
    drawn = zip(with_interval(speed.column), with_interval(DRAWN), strict=True)
    names = {column: shown for column, shown in drawn if column in frame}
    renamed = frame.rename(columns=names)
    renamed[list(names.values())] = renamed[list(names.values())].astype("float64") * speed.scale
    return renamed


def _draw_centres(panel: Axes, summary: pd.DataFrame, *, axis: str, places: dict[Any, float], side: float) -> None:
    transform = shift_points(panel.transData, panel, x=7 * side)
    for framework, rows in summary.groupby("framework"):
        style = STYLES[framework]
        rows = rows.sort_values(axis, key=lambda column: column.map(places))
        x = [places[value] for value in rows[axis]]
        # A point without a centre stays in the list as NaN: the line breaks there instead of bridging a failure.
        centres = rows[DRAWN].astype("float64")
        look = {"color": style.colour, "transform": transform}
        panel.plot(x, centres, linestyle=style.line, linewidth=1.2, marker=style.marker, markersize=5, **look)
        low, high = (rows[f"{DRAWN}_{end}"].astype("float64") for end in ("low", "high"))
        if (known := (low.notna() & high.notna()).to_numpy()).any():
            errors = [(centres - low)[known], (high - centres)[known]]
            bars = {"yerr": errors, "capsize": 2.5, "linewidth": 1.0, "linestyle": "none"}
            panel.errorbar(np.array(x)[known], centres[known], **bars, **look)


def _draw_launches(panel: Axes, launches: pd.DataFrame, *, axis: str, places: dict[Any, float], side: float) -> None:
    for framework, group in launches.groupby("framework"):
        good, bad = group[group["status"] == "ok"], group[group["status"] != "ok"]
        colour = STYLES[framework].colour
        repeated = good[good[axis].duplicated(keep=False)]
        if len(repeated):
            outward = shift_points(panel.transData, panel, x=7 * side + (-7 if side < 0 else 7))
            look = {"markersize": 4.5, "color": colour, "transform": outward, "zorder": 3}
            panel.plot(repeated[axis].map(places), repeated[DRAWN], ".", **look)
        foot = shift_points(panel.get_xaxis_transform(), panel, x=7 * side)
        lost = bad["status"].groupby(bad[axis].rename("value"))
        ends = [((places[value], 0.03), count_statuses(statuses)) for value, statuses in lost]
        mark_ends(panel, ends, transform=foot, colour=colour)


def _place_values(points: pd.DataFrame, axis: str) -> dict[Any, float]:
    """Value -> x: counts on a log scale, since they are swept in powers of two; choices side by side."""
    values = order_values(axis, points[axis])
    is_count = is_number(points[axis]) and None not in values and min(values, default=0) > 0
    return {value: float(np.log2(value)) if is_count else float(index) for index, value in enumerate(values)}


def _choose_panels(run: Run, axis: str) -> list[dict[str, Any]]:
    """The combinations of the other axes at which `axis` has at least two values to compare, in table order."""
    points, others = run.points, [name for name in run.other_axes if name != axis]
    choices = combine_axes(points, others)
    if not others:
        return choices if points[axis].nunique(dropna=False) > 1 else []
    values = points.groupby(others, sort=False, dropna=False)[axis].nunique(dropna=False)
    comparable = {make_key(key if isinstance(key, tuple) else (key,)) for key in values.index[values > 1]}
    return [chosen for chosen in choices if tuple(chosen.values()) in comparable]


def _arrange(choices: list[dict[str, Any]], *, emulated: frozenset[str]) -> tuple[list[list[Cell]], str]:
    """A grid of panels: one axis down and the rest across, or just filled up; and a note if there are too many."""
    down = next((name for name in ROW_AXES if name in choices[0]), None) if len(choices[0]) > 1 else None
    rows: dict[Any, list[dict[str, Any]]] = {}
    for chosen in choices:
        rows.setdefault(chosen.get(down), []).append(({down: chosen[down]} if down else {}) | chosen)
    if len({len(row) for row in rows.values()}) == 1 and (down or len(choices) <= MAX_COLUMNS):
        grid = [row[: max(1, MAX_SMALL_PANELS // len(rows))] for row in rows.values()]
    else:
        ordered = [chosen for row in rows.values() for chosen in row][:MAX_SMALL_PANELS]
        grid = [ordered[start : start + MAX_COLUMNS] for start in range(0, len(ordered), MAX_COLUMNS)]
    shown = sum(len(row) for row in grid)
    note = "" if shown == len(choices) else f"\nfirst {shown} of {len(choices)} configurations"
    cells = [[Cell(title=describe_choice(chosen, emulated=emulated), chosen=chosen) for chosen in row] for row in grid]
    return cells, note


def _count_launches(summary: pd.DataFrame) -> str:
    counts = sorted(set(summary["launches_ok"].astype(int)))
    if counts == [0]:
        return "no launch ended in ok"
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {span} launch{'' if counts == [1] else 'es'} per point"
