"""Is the step time steady? The seconds of every step of every launch, warm-up included."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import (
    MAX_COLUMNS,
    MAX_SMALL_PANELS,
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    count_shown,
    count_statuses,
    describe_choice,
    draw_panels,
    emulated_precisions,
    fill_grid,
    finite_max,
    join_curves,
    legend_mark,
    list_frameworks,
    mark_ends,
    shift_points,
)
from hvbench.analysis.topics.topic import Need, Topic


def plot_steadiness(run: Run) -> dict[str, Figure]:
    """The one plot."""
    return {"step_seconds": plot_step_seconds(run)}


def plot_step_seconds(run: Run) -> Figure:
    """Seconds of every step by one rank, warm-up hollow and shaded; a panel per combination of the other axes.

    The rank is the one that needed the longest for all steps together: a maximum taken step by step would add the ranks' skew to each.

    The scale is that of the timed steps: a warm-up step beyond it is a triangle at the upper edge with its seconds.
    """
    points = run.points_with()
    choices = combine_axes(points, run.other_axes)
    shown = choices[:MAX_SMALL_PANELS]
    columns = min(MAX_COLUMNS, len(shown))
    emulated = emulated_precisions(points)
    cells = [Cell(title=describe_choice(chosen, emulated=emulated), chosen=chosen) for chosen in shown]
    grid = fill_grid(cells, columns=columns)
    seen = pd.concat([choose_rows(points, chosen)["launch"] for chosen in shown])
    slowest = run.slowest_steps[run.slowest_steps["launch"].isin(seen)]
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
        figure.suptitle(f"Is the step time steady after the warm-up?{count_shown(shown, choices)}")
        extra = [Patch(facecolor="#e4e4e4", label="warm-up: hollow, left out of every figure"),
                 legend_mark("beyond the scale", marker="^", markerfacecolor="white")]  # fmt: skip
        add_legend(figure, list_frameworks(points), extra)
    return figure


def _draw_steps(panel: Axes, launches: pd.DataFrame, *, slowest: pd.DataFrame, top: float, line: int) -> None:
    """The launches of one framework; `line` is the line of text that its off-scale steps take at the upper edge."""
    style = STYLES[launches["framework"].iloc[0]]
    mine = slowest[slowest["launch"].isin(launches["launch"])]
    seconds = mine["step_seconds"].where(mine["step_seconds"] <= top)
    curves = join_curves(mine["step"], seconds, launch=mine["launch"])
    panel.plot(*curves, color=style.colour, linestyle=style.line, linewidth=0.5, alpha=0.5)
    for is_warmup, face in ((True, "white"), (False, style.colour)):
        look = {"marker": style.marker, "markersize": 3, "markeredgewidth": 0.8, "linestyle": "none"}
        part = mine["is_warmup"] == is_warmup
        panel.plot(mine["step"][part], seconds[part], color=style.colour, markerfacecolor=face, **look)
    lost_at = mine.drop_duplicates("launch", keep="last").merge(
        launches.loc[launches["status"] != "ok", ["launch", "status"]]
    )
    ends = [((row.step, min(row.step_seconds, 0.8 * top)), row.status) for row in lost_at.itertuples()]
    mark_ends(panel, ends, transform=panel.transData, colour=style.colour)
    lost = launches.loc[(launches["status"] != "ok") & ~launches["launch"].isin(slowest["launch"]), "status"]
    if len(lost):
        # Off the steps' scale: a cross on it would say at which step the launch ended.
        text = f"{style.label}: {count_statuses(lost)}, no steps"
        panel.text(0.97, 0.05 + 0.1 * line, text, transform=panel.transAxes, ha="right", fontsize=8, color=style.colour)
    outside = mine[mine["step_seconds"] > top]
    if len(outside):
        edge = shift_points(panel.get_xaxis_transform(), panel, y=-5 - 10 * line)
        look = {"color": style.colour, "markerfacecolor": "white", "markersize": 5, "zorder": 4}
        panel.plot(outside["step"], [1.0] * len(outside), "^", transform=edge, **look)
        low, high = (f"{value:.3g}" for value in (outside["step_seconds"].min(), outside["step_seconds"].max()))
        text = f"{high} s" if low == high else f"{low} to {high} s"
        place = (outside["step"].max(), 1.0)
        offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        panel.annotate(text, place, xycoords=edge, fontsize=8, color=style.colour, **offset)


def has_steps(run: Run) -> bool:
    """Whether any launch has the seconds of a step."""
    return any(rank.step_seconds for record in run.records for rank in record.ranks)


TOPIC = Topic(
    name="Steadiness",
    question="Is the step time steady after the warm-up?",
    needs=Need(words="launches that recorded steps", is_met=has_steps),
    plots=plot_steadiness,
)
