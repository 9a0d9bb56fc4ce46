"""The plot "Where does the time of a step go?": stacked parts, a panel a framework, a bar a configuration."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hvbench.analysis.frame.breakdown import PARTS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import (
    GREY,
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    count_shown,
    count_statuses,
    describe_value,
    draw_panels,
    emulated_precisions,
    finite_max,
    legend_mark,
    list_frameworks,
    mark_end,
    shift_points,
)
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summary_of

# Okabe and Ito's palette without the two colours that stand for frameworks; grey for their black, which a dark page hides.
PART_COLOURS = dict(zip(PARTS, ("#808080", "#56B4E9", "#009E73", "#F0E442", "#CC79A7"), strict=True))
BAR_WIDTH = 0.6
MAX_BARS = 12  # a panel


def plot_breakdown(run: Run) -> Figure:
    """Milliseconds of each part of a step; the sum with its interval, and the step as the timed steps measured it.

    A negative part hangs below zero.
    """
    points, summary = run.points, summary_of(run)
    choices = combine_axes(points, run.other_axes)
    shown = choices[:MAX_BARS]
    frameworks = list_frameworks(points)
    cells = [[Cell(title=STYLES[name].label, chosen={"framework": name}) for name in frameworks]]
    emulated = emulated_precisions(points)
    labels = ["\n".join(describe_value(axis, value, emulated=emulated) for axis, value in one.items()) for one in shown]
    with draw_panels(cells, width=max(3.4, 1.1 * len(shown)), height=3.4) as (figure, panels):
        for panel, chosen in panels:
            for place, choice in enumerate(shown):
                _draw_bar(panel, place, row=choose_rows(summary, chosen | choice))
                _mark_lost(panel, place, launches=choose_rows(points, chosen | choice))
            panel.axhline(0, color=GREY, linewidth=0.8)
            panel.set_xticks(range(len(shown)), labels, fontsize=8)
            panel.set_xlim(-0.6, len(shown) - 0.4)
            panel.grid(axis="x", visible=False)
        # An interval of two launches may be ten times as high as a bar; it may leave the picture.
        highest = finite_max(summary["parts_seconds"], summary["step_seconds_median"]) or 1e-3
        highest_bar = finite_max(summary["parts_seconds_high"], summary["step_seconds_median_high"]) or 0.0
        lowest = min(0.0, *(bar.get_y() + bar.get_height() for panel, _ in panels for bar in panel.patches))
        panels[0][0].set_ylim(1.08 * lowest, 1.08e3 * max(highest, min(highest_bar, 1.5 * highest)))
        figure.supylabel("step time of the slowest rank (ms)")
        counts = sorted(set(summary["launches_ok"].astype(int)))
        launches = " to ".join(str(each) for each in dict.fromkeys((counts[0], counts[-1])))
        figure.suptitle(
            f"Where does the time of a step go?\nn = {launches} launch{'' if counts[-1] == 1 else 'es'} per point; "
            f"bars: {CONFIDENCE * 100:g} % interval over launches{count_shown(shown, choices)}"
        )
        parts = [Patch(facecolor=colour, label=PARTS[name]) for name, colour in PART_COLOURS.items()]
        extra = [
            legend_mark("timed steps, with data", marker="D", markerfacecolor="white", color="black", markersize=5)
        ]
        if (points["status"] != "ok").any():
            extra.append(legend_mark("did not end in ok", marker="x"))
        add_legend(figure, [], [*parts, *extra])
    return figure


def _draw_bar(panel: Axes, place: int, *, row: pd.DataFrame) -> None:
    """One point's parts stacked, what is negative downwards; its sum and its measured step with their intervals."""
    if row.empty or pd.isna(row["parts_seconds"].iloc[0]):
        return
    values = row.iloc[0]
    top = bottom = 0.0
    for name, colour in PART_COLOURS.items():
        height = 1e3 * float(values[name])
        start = top if height >= 0 else bottom
        panel.bar(place, height, BAR_WIDTH, bottom=start, color=colour, edgecolor="white", linewidth=0.5)
        top, bottom = (top + height, bottom) if height >= 0 else (top, bottom + height)
    # The sum is drawn left of the middle and the measured step right of it: they lie close together.
    left, right = (shift_points(panel.transData, panel, x=x) for x in (-6, 6))
    _draw_interval(panel, place, read_estimate(values, "parts_seconds"), transform=left, marker="_", markersize=8)
    look: dict[str, Any] = {"marker": "D", "markersize": 4, "markerfacecolor": "white", "transform": right}
    base = float(values["data_seconds_median"])
    _draw_interval(panel, place, read_estimate(values, "step_seconds_median"), base=base, **look)


def _draw_interval(panel: Axes, place: int, estimate: Estimate, *, base: float = 0.0, **look: Any) -> None:
    low, high = (estimate.centre if end is None else end for end in (estimate.low, estimate.high))
    errors = [[1e3 * (estimate.centre - low)], [1e3 * (high - estimate.centre)]]
    centre = 1e3 * (base + estimate.centre)
    panel.errorbar([place], [centre], yerr=errors, capsize=2, linewidth=0.9, color="black", **look)


def _mark_lost(panel: Axes, place: int, *, launches: pd.DataFrame) -> None:
    lost = launches[launches["status"] != "ok"]
    if len(lost):
        foot = shift_points(panel.get_xaxis_transform(), panel)
        mark_end(panel, (place, 0.03), transform=foot, text=count_statuses(lost["status"]), colour="black")
