"""Steps to the target against the global batch: measured, fitted, and where the noise scale says that it flattens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import (
    MAX_PANELS,
    STYLES,
    Cell,
    add_legend,
    describe_choice,
    draw_panels,
    emulated_precisions,
    fill_grid,
    format_large,
    legend_mark,
    list_frameworks,
)
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.survival import estimate_arrival
from hvbench.analysis.topics.batch.sentences import name_axes
from hvbench.analysis.topics.batch.tradeoff import Curve, find_curves

COLUMNS = 3


def plot_tradeoff(run: Run) -> Figure:
    """A panel per choice of what varies beside the batch."""
    points = run.points
    panels_of: dict[tuple, list[Curve]] = {}
    for curve in find_curves(run):
        panels_of.setdefault(tuple((k, v) for k, v in curve.chosen.items() if k != "framework"), []).append(curve)
    keys, named = list(panels_of)[:MAX_PANELS], name_axes(points)
    columns = 2 if len(keys) == 4 else min(COLUMNS, len(keys))
    emulated = emulated_precisions(points)
    titles = [describe_choice({k: v for k, v in key if k in named}, emulated=emulated) for key in keys]
    cells = [Cell(title=title, chosen={"key": key}) for title, key in zip(titles, keys, strict=True)]
    grid = fill_grid(cells, columns=columns)
    batches = sorted({batch for key in keys for curve in panels_of[key] for batch in curve.launches})
    with draw_panels(grid, width=max(3.4, 6.5 / columns), height=3.0, x_label="global batch (samples)") as (
        figure,
        panels,
    ):
        for panel, chosen in panels:
            for curve in panels_of[chosen["key"]]:
                draw_curve(panel, curve, batches=batches)
            panel.set_xscale("log", base=2)
            panel.set_xlim(min(batches) / 2, max(batches) * 2)
            panel.set_yscale("log")
            panel.set_xticks(batches, [str(batch) for batch in batches], rotation=45 if len(batches) > 6 else 0)
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            panel.yaxis.set_major_formatter(FuncFormatter(format_large))
        figure.supylabel("steps to the target")
        figure.suptitle(
            "From which batch on does a larger one save no steps?\nsquares and circles: medians; dots: launches"
        )
        add_legend(
            figure,
            list_frameworks(points),
            [
                legend_mark("fit S_min (1 + B_crit / B)", linestyle="-", linewidth=0.8),
                legend_mark("fitted B_crit", linestyle=":", linewidth=1.0),
                legend_mark(f"noise scale, {CONFIDENCE * 100:g} %", marker="s", markersize=9, alpha=0.3),
                legend_mark("launch ended above the target", marker="^", markerfacecolor="white"),
                legend_mark("launch diverged, failed or gave up", marker="x"),
            ],
        )
    return figure


def draw_curve(panel: Axes, curve: Curve, *, batches: Sequence[int]) -> None:
    """One framework: launches, medians, the fit, its critical batch and the band of the noise scale."""
    style = STYLES[curve.chosen["framework"]]
    look = {"color": style.colour}
    for batch, launches in curve.launches.items():
        reached = [one.value for one in launches if one.is_reached]
        never = sum(not one.is_reached and not math.isfinite(one.value) for one in launches)
        panel.plot([batch] * never, [0.95] * never, "x", markersize=6, transform=panel.get_xaxis_transform(), **look)
        lost = [one.value for one in launches if not one.is_reached and math.isfinite(one.value)]
        panel.plot([batch] * len(reached), reached, ".", markersize=3, **look)
        panel.plot([batch] * len(lost), lost, "^", markersize=6, markerfacecolor="white", **look)
    medians = {batch: estimate_arrival(launches).median for batch, launches in curve.launches.items()}
    known = {batch: median for batch, median in medians.items() if median is not None}
    face = "none" if style.is_hollow else style.colour
    panel.plot(
        list(known), list(known.values()), style.marker, markersize=style.marker_size, markerfacecolor=face, **look
    )
    if curve.fit:
        x = np.geomspace(min(batches), max(batches), 60)
        y = curve.fit.fewest_steps.centre + curve.fit.fewest_samples.centre / x
        panel.plot(x, y, linestyle=style.line, linewidth=0.8, **look)
    if curve.fit and curve.fit.critical_batch.low is not None:
        panel.axvline(curve.fit.critical_batch.centre, linestyle=":", linewidth=1.0, **look)
    noise = curve.noise
    if noise.low is not None and noise.high is not None:
        panel.axvspan(noise.low, noise.high, color=style.colour, alpha=0.12, linewidth=0, zorder=0)
