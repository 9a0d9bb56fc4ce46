"""Records -> figures: throughput by axis, loss curves, step times. Raw points stay visible, failures are marked.

A figure's title is the question that it answers, and a question that the records cannot answer has no figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvbench.analysis.frame.axes import order_values, varying_axes
from hvbench.analysis.frame.frames import evaluation_frame, point_frame, step_frame
from hvbench.analysis.show.panels import (
    GREY,
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
    format_large,
    label_text,
    legend_mark,
    list_frameworks,
    mark_end,
    place_beside,
    shift_points,
)
from hvbench.analysis.show.tables import show_axis
from hvbench.analysis.stats.estimates import CONFIDENCE, read_estimate, summarize_launches
from hvbench.analysis.topics.breakdown_plot import plot_breakdown
from hvbench.analysis.topics.links_report import models_of, plot_links
from hvbench.analysis.topics.overflows import plot_loss_scale
from hvbench.analysis.topics.scaling_plot import plot_scaling
from hvbench.analysis.topics.targets import plot_targets
from hvbench.analysis.topics.tradeoff_plot import plot_tradeoff
from hvbench.records.record import Record

THROUGHPUT_AXES = {  # axis: (the plot's question, the label of its x axis)
    "micro_batch_size": ("Does throughput rise with the micro-batch?", "micro-batch (samples)"),
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
ROW_AXES = ("precision", "compression", "gradient_accumulation_steps", "micro_batch_size")
CLOCKS = {"step": "steps", "tokens": "tokens", "training_seconds": "training seconds (evaluation left out)"}
MAX_PANELS = 24
MAX_COLUMNS = 4  # where panels fill up a grid
MAX_RISE = 1.2  # of a training loss over the first one, still drawn in full
MIN_CURVE_STEPS = 30  # fewer steps, and no evaluation, say nothing about convergence


def all_plots(records: Iterable[Record], *, points: pd.DataFrame | None = None) -> dict[str, Figure]:
    """File stem -> figure, for the questions that these records can answer: an axis that does not vary is not drawn.

    `points` is `point_frame(records)`, where it is at hand.
    """
    records = list(records)
    points = point_frame(records) if points is None else points
    steps, evaluations = step_frame(records), evaluation_frame(records)
    varying = varying_axes(points)
    axes = [axis for axis in THROUGHPUT_AXES if axis in varying and (axis != "framework" or varying == [axis])]
    axes = [axis for axis in axes if _choose_panels(points, axis)]
    summary = summarize_launches(points)
    figures = {f"throughput_by_{axis}": plot_throughput(points, axis, summary=summary) for axis in axes}
    if scaling := plot_scaling(points):
        figures["scaling_efficiency"] = scaling
    if links := plot_links(points, models_of(points, records)):
        figures["step_by_link"] = links
    if len(evaluations) or (len(steps) and steps["step"].max() >= MIN_CURVE_STEPS):
        figures["loss_curves"] = plot_loss_curves(points, steps, evaluations=evaluations)
    if targets := plot_targets(points):
        figures["target_reached"] = targets
    if tradeoff := plot_tradeoff(points, records):
        figures["critical_batch"] = tradeoff
    if overflows := plot_loss_scale(points, records):
        figures["loss_scale"] = overflows
    if points["parts_seconds"].notna().any():
        figures["breakdown"] = plot_breakdown(points, summary=summary)
    if len(steps):
        figures["step_seconds"] = plot_step_seconds(points, steps)
    return figures


def plot_throughput(points: pd.DataFrame, axis: str, *, summary: pd.DataFrame) -> Figure:
    """Tokens per second of all ranks against `axis`, a panel per combination of other axes that has several values.

    `summary` is `summarize_launches(points)`, passed in because several plots share it.
    """
    question, x_label = THROUGHPUT_AXES[axis]
    places = _place_values(points, axis)
    gap = float(min(np.diff(sorted(places.values())), default=1.0))
    frameworks = list_frameworks(points)
    repeated = bool((summary["launches_ok"] > 1).any())
    emulated = emulated_precisions(points)
    cells, note = _arrange(_choose_panels(points, axis), emulated=emulated)
    width = max(2.5, 6.5 / len(cells[0]), 0.4 * len(places))
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
                else label_text(show_axis(axis, value, is_emulated=value in emulated))
                for value in places
            ]
            panel.set_xticks(list(places.values()), labels)
            panel.set_xlim(min(places.values()) - 0.45 * gap, max(places.values()) + 0.45 * gap)
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        highest = finite_max(points["tokens_per_second"])
        # An interval of two launches may be ten times as high as the launches; it may leave the picture.
        highest_bar = finite_max(summary["tokens_per_second_high"]) or 0.0
        panels[0][0].set_ylim(0, 1.08 * max(highest, min(highest_bar, 1.5 * highest)) if highest else 1)
        if not highest:
            panels[0][0].set_yticks([])
        figure.supylabel("tokens/s, all ranks")
        bars = f"; bars: {CONFIDENCE * 100:g} % interval over launches" if repeated else ""
        figure.suptitle(f"{question}\n{_count_launches(summary)}{bars}{note}")
        extra = [legend_mark("one launch", marker=".")] if repeated else []
        if (points["status"] != "ok").any():
            extra.append(legend_mark("did not end in ok", marker="x"))
        add_legend(figure, frameworks if axis != "framework" else [], extra)
    return figure


def plot_loss_curves(points: pd.DataFrame, steps: pd.DataFrame, *, evaluations: pd.DataFrame) -> Figure:
    """Loss against steps, tokens and training seconds; all frameworks on one axis, a row per choice of other axes."""
    others = [name for name in varying_axes(points) if name != "framework"]
    choices = combine_axes(points, others)
    shown = choices[: MAX_PANELS // len(CLOCKS)]
    seen = pd.concat([choose_rows(points, chosen) for chosen in shown])
    ended_ok = seen.loc[seen["status"] == "ok", "launch"]
    mine, marks = (frame[frame["launch"].isin(ended_ok)] for frame in (steps, evaluations))
    drawn = pd.concat([mine["loss"], marks["validation_loss"]])
    drawn = drawn[
        drawn <= MAX_RISE * mine.loc[mine["step"] == mine["step"].min(), "loss"].max()
    ]  # what blew up says nothing of the rest
    curves = steps.groupby(["launch", "step"], as_index=False).agg(
        loss=("loss", "mean"), tokens=("tokens", "first"), training_seconds=("training_seconds", "max")
    )
    emulated = emulated_precisions(points)
    titles = [describe_choice(chosen, emulated=emulated).replace("\n", ", ") for chosen in shown]
    cells = [
        [Cell(title="" if column else title, chosen=chosen) for column in range(len(CLOCKS))]
        for title, chosen in zip(titles, shown, strict=True)
    ]
    with draw_panels(cells, width=3.5, height=3.0) as (figure, panels):
        for index, (panel, chosen) in enumerate(panels):
            clock = list(CLOCKS)[index % len(CLOCKS)]
            launches = choose_rows(points, chosen)
            for launch in launches.itertuples():
                mine = curves[curves["launch"] == launch.launch]
                seen = evaluations[evaluations["launch"] == launch.launch]
                _draw_curve(panel, mine, seen=seen, clock=clock, launch=launch, highest=finite_max(drawn))
            for target in launches["target_loss"].dropna().unique():
                panel.axhline(target, color=GREY, linewidth=0.9, linestyle=":")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=clock != "training_seconds"))
            panel.xaxis.set_major_formatter(FuncFormatter(format_large))
            panel.set_xlabel(CLOCKS[clock])
        if drawn.notna().any():
            margin = 0.05 * (drawn.max() - drawn.min()) + 0.01
            panels[0][0].set_ylim(min(drawn.min(), points["target_loss"].min()) - margin, drawn.max() + margin)
        figure.supylabel("loss (nats per token)")
        frameworks = list_frameworks(points)
        several = f"Do {'both' if len(frameworks) == 2 else 'the'} frameworks learn alike, and which gets there first?"
        question = several if len(frameworks) > 1 else "How fast does the loss fall?"
        figure.suptitle(f"{question}{_count_shown(shown, choices)}")
        extra = [legend_mark("training loss: lines", linestyle="-", linewidth=0.9)]
        if len(evaluations):
            extra.append(legend_mark("validation loss: markers", marker="o", markerfacecolor="none"))
        if points["target_loss"].notna().any():
            extra.append(legend_mark("target", linestyle=":", linewidth=0.9))
        add_legend(figure, list_frameworks(points), extra)
    return figure


def plot_step_seconds(points: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """The slowest rank's seconds of every step, warm-up hollow and shaded; a panel per combination of the other axes.

    The scale is that of the timed steps: a warm-up step beyond it is a triangle at the upper edge with its seconds.
    """
    choices = combine_axes(points, [name for name in varying_axes(points) if name != "framework"])
    shown = choices[:MAX_PANELS]
    columns = min(MAX_COLUMNS, len(shown))
    emulated = emulated_precisions(points)
    cells = [Cell(title=describe_choice(chosen, emulated=emulated), chosen=chosen) for chosen in shown]
    grid = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    slowest = steps.groupby(["launch", "step"], as_index=False).agg(
        step_seconds=("step_seconds", "max"), is_warmup=("is_warmup", "first")
    )
    width, height = (2.7, 2.0) if columns > 1 else (7.0, 3.2)
    with draw_panels(grid, width=width, height=height, x_label="step", share_y=False) as (figure, panels):
        for panel, chosen in panels:
            launches = choose_rows(points, chosen)
            mine = slowest[slowest["launch"].isin(launches["launch"])]
            timed = mine[~mine["is_warmup"]]
            top = 1.3 * (finite_max((timed if len(timed) else mine)["step_seconds"]) or 1.0)
            warmup_end = mine.loc[mine["is_warmup"], "step"].max() if len(mine) else 0
            panel.axvspan(0.5, warmup_end + 0.5, color="#eeeeee", linewidth=0, zorder=0)
            for line, framework in enumerate(list_frameworks(launches)):
                _draw_steps(panel, choose_rows(launches, {"framework": framework}), slowest=mine, top=top, line=line)
            panel.set_ylim(0, top)
            if mine.empty:
                panel.set_yticks([])
            panel.set_xlim(0.5, max(2, mine["step"].max() if len(mine) else 0) + 0.5)
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        figure.supylabel("step time of the slowest rank (s)")
        figure.suptitle(f"Is the step time steady after the warm-up?{_count_shown(shown, choices)}")
        extra = [Patch(facecolor="#e4e4e4", label="warm-up: hollow, left out of every figure"),
                 legend_mark("beyond the scale", marker="^", markerfacecolor="white")]  # fmt: skip
        add_legend(figure, list_frameworks(points), extra)
    return figure


def _draw_centres(panel: Axes, summary: pd.DataFrame, *, axis: str, places: dict[Any, float], side: float) -> None:
    transform = shift_points(panel.transData, panel, x=7 * side)
    for framework, rows in summary.groupby("framework"):
        style = STYLES[framework]
        rows = rows.sort_values(axis, key=lambda column: column.map(places))
        x = [places[value] for value in rows[axis]]
        # A point without a centre stays in the list as NaN: the line breaks there instead of bridging a failure.
        centres = rows["tokens_per_second"].astype("float64")
        look = {"color": style.colour, "transform": transform}
        panel.plot(x, centres, linestyle=style.line, linewidth=1.2, marker=style.marker, markersize=5, **look)
        for place, (_, row) in zip(x, rows.iterrows(), strict=True):
            estimate = read_estimate(row, "tokens_per_second")
            if estimate and estimate.low is not None and estimate.high is not None:
                errors = [[estimate.centre - estimate.low], [estimate.high - estimate.centre]]
                panel.errorbar([place], [estimate.centre], yerr=errors, capsize=2.5, linewidth=1.0, **look)


def _draw_launches(panel: Axes, launches: pd.DataFrame, *, axis: str, places: dict[Any, float], side: float) -> None:
    for (framework, value), group in launches.groupby(["framework", launches[axis].rename("value")]):
        good, bad = group[group["status"] == "ok"], group[group["status"] != "ok"]
        colour = STYLES[framework].colour
        if len(good) > 1:
            outward = shift_points(panel.transData, panel, x=7 * side + (-7 if side < 0 else 7))
            x = [places[value]] * len(good)
            panel.plot(x, good["tokens_per_second"], ".", markersize=4.5, color=colour, transform=outward, zorder=3)
        if len(bad):
            foot = shift_points(panel.get_xaxis_transform(), panel, x=7 * side)
            mark_end(panel, (places[value], 0.03), transform=foot, text=count_statuses(bad["status"]), colour=colour)


def _draw_curve(
    panel: Axes, curve: pd.DataFrame, *, seen: pd.DataFrame, clock: str, launch: Any, highest: float | None
) -> None:
    style = STYLES[launch.framework]
    panel.plot(curve[clock], curve["loss"], color=style.colour, linestyle=style.line, linewidth=style.line_width)
    look = {"marker": style.marker, "markersize": style.marker_size, "color": style.colour, "linestyle": "none"}
    panel.plot(
        seen[clock], seen["validation_loss"], markerfacecolor="none" if style.is_hollow else style.colour, **look
    )
    if launch.status != "ok":
        known = curve.dropna(subset=["loss"])
        place, transform = (0.0, 0.03), panel.get_xaxis_transform()
        if len(known):
            last = float(known["loss"].iloc[-1])
            place, transform = (float(known[clock].iloc[-1]), min(last, highest or last)), panel.transData
        mark_end(panel, place, transform=transform, text=launch.status, colour=style.colour)


def _draw_steps(panel: Axes, launches: pd.DataFrame, *, slowest: pd.DataFrame, top: float, line: int) -> None:
    """The launches of one framework; `line` is the line of text that its off-scale steps take at the upper edge."""
    style = STYLES[launches["framework"].iloc[0]]
    for launch in launches.itertuples():
        mine = slowest[slowest["launch"] == launch.launch]
        seconds = mine["step_seconds"].where(mine["step_seconds"] <= top)
        panel.plot(mine["step"], seconds, color=style.colour, linestyle=style.line, linewidth=0.5, alpha=0.5)
        for is_warmup, face in ((True, "white"), (False, style.colour)):
            look = {"marker": style.marker, "markersize": 3, "markeredgewidth": 0.8, "linestyle": "none"}
            part = mine["is_warmup"] == is_warmup
            panel.plot(mine["step"][part], seconds[part], color=style.colour, markerfacecolor=face, **look)
        if launch.status != "ok" and len(mine):
            last = (float(mine["step"].iloc[-1]), min(float(mine["step_seconds"].iloc[-1]), 0.8 * top))
            mark_end(panel, last, transform=panel.transData, text=launch.status, colour=style.colour)
    lost = launches.loc[(launches["status"] != "ok") & ~launches["launch"].isin(slowest["launch"]), "status"]
    if len(lost):
        # Off the steps' scale: a cross on it would say at which step the launch ended.
        text = f"{style.label}: {count_statuses(lost)}, no steps"
        panel.text(0.97, 0.05 + 0.1 * line, text, transform=panel.transAxes, ha="right", fontsize=8, color=style.colour)
    outside = slowest[slowest["launch"].isin(launches["launch"]) & (slowest["step_seconds"] > top)]
    if len(outside):
        edge = shift_points(panel.get_xaxis_transform(), panel, y=-5 - 10 * line)
        look = {"color": style.colour, "markerfacecolor": "white", "markersize": 5, "zorder": 4}
        panel.plot(outside["step"], [1.0] * len(outside), "^", transform=edge, **look)
        low, high = (f"{value:.3g}" for value in (outside["step_seconds"].min(), outside["step_seconds"].max()))
        text = f"{high} s" if low == high else f"{low} to {high} s"
        place = (outside["step"].max(), 1.0)
        offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        panel.annotate(text, place, xycoords=edge, fontsize=8, color=style.colour, **offset)


def _place_values(points: pd.DataFrame, axis: str) -> dict[Any, float]:
    """Value -> x: counts on a log scale, since they are swept in powers of two; choices side by side."""
    values = order_values(axis, points[axis])
    is_count = pd.api.types.is_numeric_dtype(points[axis]) and None not in values
    return {value: float(np.log2(value)) if is_count else float(index) for index, value in enumerate(values)}


def _choose_panels(points: pd.DataFrame, axis: str) -> list[dict[str, Any]]:
    """The combinations of the other axes at which `axis` has at least two values to compare, in table order."""
    choices = combine_axes(points, [name for name in varying_axes(points) if name not in (axis, "framework")])
    return [chosen for chosen in choices if choose_rows(points, chosen)[axis].nunique(dropna=False) > 1]


def _arrange(choices: list[dict[str, Any]], *, emulated: frozenset[str]) -> tuple[list[list[Cell]], str]:
    """A grid of panels: one axis down and the rest across, or just filled up; and a note if there are too many."""
    down = next((name for name in ROW_AXES if name in choices[0]), None) if len(choices[0]) > 1 else None
    rows: dict[Any, list[dict[str, Any]]] = {}
    for chosen in choices:
        rows.setdefault(chosen.get(down), []).append(({down: chosen[down]} if down else {}) | chosen)
    if len({len(row) for row in rows.values()}) == 1 and (down or len(choices) <= MAX_COLUMNS):
        grid = [row[: max(1, MAX_PANELS // len(rows))] for row in rows.values()]
    else:
        ordered = [chosen for row in rows.values() for chosen in row][:MAX_PANELS]
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


def _count_shown(shown: list[Any], choices: list[Any]) -> str:
    return "" if len(shown) == len(choices) else f"\nfirst {len(shown)} of {len(choices)} configurations"
