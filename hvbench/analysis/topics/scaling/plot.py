"""The scaling plot: efficiency against ranks, a panel per kind, baseline and what else varies."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.analysis.frame.axes import OWN_BATCH
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import (
    GREY,
    MAX_PANELS,
    STYLES,
    Cell,
    add_legend,
    describe_choice,
    draw_panels,
    emulated_precisions,
    fill_grid,
    legend_mark,
    list_frameworks,
    place_beside,
    shift_points,
)
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.topics.scaling.efficiency import FIXED, Efficiency, efficiencies_of, global_batch

ATTAINABLE = {"linestyle": (0, (1, 2)), "linewidth": 1.6}
AGAINST = {1: "against 1 process without Horovod", 2: "against 2 ranks"}


def plot_scaling(run: Run) -> Figure:
    """Efficiency of each point against each baseline, with intervals."""
    points, others = run.points, [name for name in run.other_axes if name != "world_size"]
    panels_of: dict[tuple, list[Efficiency]] = {}
    for one in efficiencies_of(run):
        panels_of.setdefault(_panel_key(one, others), []).append(one)
    keys = list(panels_of)[:MAX_PANELS]
    columns = min(2, len(keys)) if len(keys) <= 4 else 4
    emulated = emulated_precisions(points)
    cells = [Cell(title=_describe_panel(key, emulated=emulated), chosen={"key": key}) for key in keys]
    grid = fill_grid(cells, columns=columns)
    frameworks = list_frameworks(points)
    worlds = sorted({int(value) for value in points["world_size"].dropna()})
    ceiling = 100 * max(1.0, *(one.estimate.centre for key in keys for one in panels_of[key]))
    with draw_panels(grid, width=max(3.4, 7.0 / columns), height=2.4, x_label="ranks") as (figure, panels):
        for panel, chosen in panels:
            found = panels_of[chosen["key"]]
            panel.axhline(100, color=GREY, linewidth=0.9, linestyle=":")
            for index, framework in enumerate(frameworks):
                side = place_beside(index, of=len(frameworks))
                mine = sorted((one for one in found if one.point["framework"] == framework), key=_ranks)
                _draw_line(panel, mine, framework=framework, side=side)
            panel.set_xscale("log", base=2)
            panel.set_xticks(worlds, [str(world) for world in worlds])
            panel.minorticks_off()
            panel.set_xlim(worlds[0] / 1.25, worlds[-1] * 1.25)
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        panels[0][0].set_ylim(0, 1.25 * ceiling)  # an interval of two launches may leave the picture
        figure.supylabel("efficiency: tokens/s per rank / baseline's")
        shown = "" if len(keys) == len(panels_of) else f"\nfirst {len(keys)} of {len(panels_of)} panels"
        counts = sorted({one.estimate.n for ones in panels_of.values() for one in ones})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        pairs = f"n = {span} pair{'' if counts == [1] else 's'} of launches"
        bars = f"; bars: {CONFIDENCE * 100:g} % interval" if counts[-1] > 1 else ""
        figure.suptitle(f"What does each further rank bring?\n{pairs}{bars}{shown}")
        marks = [legend_mark("as much as the baseline's", linestyle=":", linewidth=0.9)]
        if any(one.attainable for ones in panels_of.values() for one in ones):
            marks.append(legend_mark("attainable: matrix products alone", **ATTAINABLE))
        add_legend(figure, frameworks, marks)
    return figure


def _draw_line(panel: Any, efficiencies: list[Efficiency], *, framework: str, side: float) -> None:
    if not efficiencies:
        return
    style = STYLES[framework]
    look = {"color": style.colour, "transform": shift_points(panel.transData, panel, x=5 * side)}
    x = [efficiencies[0].baseline_world_size, *(_ranks(one) for one in efficiencies)]
    y = [100.0, *(100 * one.estimate.centre for one in efficiencies)]
    panel.plot(x, y, linestyle=style.line, linewidth=1.2, marker=style.marker, markersize=5, **look)
    known = [one for one in efficiencies if one.attainable]
    if known:
        worlds = [efficiencies[0].baseline_world_size, *map(_ranks, known)]
        panel.plot(worlds, [100.0, *(100 * one.attainable.centre for one in known)], **ATTAINABLE, **look)
    for one in efficiencies:
        estimate = one.estimate
        if estimate.low is not None and estimate.high is not None:
            errors = [[100 * (estimate.centre - estimate.low)], [100 * (estimate.high - estimate.centre)]]
            panel.errorbar([_ranks(one)], [100 * estimate.centre], yerr=errors, capsize=2.5, linewidth=1.0, **look)


def _ranks(one: Efficiency) -> int:
    return int(one.point["world_size"])


def _panel_key(one: Efficiency, others: list[str]) -> tuple:
    """Kind, baseline, and what is fixed along a line of the panel."""
    kept = [name for name in others if one.kind == "weak" or name not in OWN_BATCH]
    choice = [(name, one.point[name]) for name in kept]
    if one.kind == "strong":
        choice.append(("global batch", global_batch(one.point)))
    return (one.kind, one.baseline_world_size, tuple(choice))


def _describe_panel(key: tuple, *, emulated: frozenset[str]) -> str:
    kind, baseline, choice = key
    what = describe_choice({name: value for name, value in choice}, emulated=emulated)
    return f"{FIXED[kind]} fixed{f': {what}' if what else ''}\n{AGAINST[baseline]}"
