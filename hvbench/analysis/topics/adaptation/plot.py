"""Validation loss against what it costs: time, memory and bytes, each way a point, and the front of the lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.panels import (
    STYLES,
    Cell,
    add_legend,
    draw_panels,
    format_large,
    label_text,
    legend_mark,
    list_frameworks,
)
from hvbench.analysis.topics.adaptation.front import LOSS, MEASURES, WIRE, Measure, Ways, learned_rows, measures_of
from hvbench.analysis.topics.throughput.pairs import by_framework, by_link, chosen_axes

OF_LOSS = next(measure for measure in MEASURES if measure.column == LOSS)


def plot_ways(run: Run, ways: Ways) -> Figure:
    """A row per framework and link, a panel per cost; a line joins the points that get further than all that cost less."""
    rows = learned_rows(run)
    costs = [measure for measure in measures_of(rows) if measure is not OF_LOSS]
    parts = {
        (framework, link): mine
        for framework, own in by_framework(rows).items()
        for link, mine in by_link(run, own).items()
    }
    cells = [
        [
            Cell(title=f"{cost.words}, {STYLES[name].label}{link}", chosen={"cost": cost, "part": (name, link)})
            for cost in costs
        ]
        for name, link in parts
    ]
    with draw_panels(cells, width=3.6, height=2.8) as (figure, panels):
        for number, (panel, chosen) in enumerate(panels):
            cost, part = chosen["cost"], chosen["part"]
            if cost.column == WIRE:
                panel.set_xscale("log")
                panel.xaxis.set_major_formatter(FuncFormatter(format_large))
            else:
                panel.locator_params(axis="x", nbins=5)
            _draw(panel, run, parts[part], cost)
            panel.margins(x=0.15, y=0.1)
            if number >= len(panels) - len(costs):
                panel.set_xlabel(cost.label)
        figure.supylabel(OF_LOSS.label)
        figure.suptitle(f"Which {ways.words} get furthest for what they cost?\nfurther down and to the left is better")
        extra = [legend_mark("one launch", marker="."), legend_mark("nothing cheaper gets as far", linestyle="-")]
        add_legend(figure, list_frameworks(run.points), extra)
    return figure


def _draw(panel: Axes, run: Run, rows: Sequence[Row], cost: Measure) -> None:
    """Means with their names, launches, and the front by the means."""
    style = STYLES[rows[0]["framework"]]
    places = sorted((float(row[cost.column]) * cost.scale, float(row[LOSS]), _short_name(run, row)) for row in rows)
    lowest, front = math.inf, []
    for x, y, _ in places:
        if y < lowest:
            lowest = y
            front.append((x, y))
    panel.plot(*zip(*front, strict=True), linestyle=style.line, linewidth=0.8, color=style.colour)
    face = "none" if style.is_hollow else style.colour
    look = {"color": style.colour, "markersize": style.marker_size, "markerfacecolor": face}
    for x, y, name in places:
        panel.plot([x], [y], style.marker, **look)
        panel.annotate(name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7, in_layout=False)
    ids = {row["point_id"] for row in rows}
    mine = run.points[run.points["point_id"].isin(ids) & (run.points["status"] == "ok")]
    launches = mine[mine[LOSS].notna() & mine[cost.column].notna()]
    x, y = (launches[name].astype("float64") for name in (cost.column, LOSS))
    panel.plot(x * cost.scale, y, ".", markersize=3, alpha=0.4, color=style.colour)


def _short_name(run: Run, row: Row) -> str:
    return label_text(", ".join(str(row[axis]) for axis in chosen_axes(run)))
