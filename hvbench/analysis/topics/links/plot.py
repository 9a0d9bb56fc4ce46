"""The plot of step time against bandwidth: launches, the fitted model, and where compression breaks even."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.panels import (
    MAX_PANELS,
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    describe_choice,
    draw_panels,
    emulated_precisions,
    fill_grid,
    legend_mark,
)
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import LinkModel, models_of

LINES = {
    "none": "-", "fp16": "--", "bf16": ":", "topk": "-.", "int8": (0, (6, 1)), "powersgd": (0, (3, 1, 1, 1, 1, 1)),
    "onebit": (0, (1, 3)),
}  # fmt: skip
MARKS = {"none": "o", "fp16": "s", "bf16": "^", "topk": "v", "int8": "D", "powersgd": "P", "onebit": "X"}
SAMPLES = 200  # of a drawn curve
FEW_POWERS = 50  # a range of bandwidths below this has ticks between its powers of ten, too


def plot_links(run: Run) -> Figure:
    """Step time against bandwidth, a panel per configuration: launches, the fitted model, the break-evens with intervals."""
    points = run.points
    others = [name for name in run.varying_axes if name not in ("compression", "link_bits_per_second")]
    shown = models_of(run)[:MAX_PANELS]
    emulated = emulated_precisions(points)
    cells = [
        Cell(
            title=describe_choice({name: model.point.get(name) for name in others}, emulated=emulated).replace(
                "\n", ", "
            ),
            chosen={"model": model},
        )
        for model in shown
    ]
    grid = fill_grid(cells, columns=2)
    compressions = [name for name in LINES if any(name in model.local_seconds for model in shown)]
    with draw_panels(grid, width=4.6, height=2.9, x_label="bandwidth of each link", share_y=False) as (figure, panels):
        for panel, chosen in panels:
            _draw_model(panel, points, chosen["model"])
        figure.supylabel("step (ms)")
        launches = f"dots: median step of a launch, n = {sum(model.launches for model in shown)}"
        if len(compressions) > 1:
            question = "From which bandwidth on does compression cost more than it saves?"
            launches = f"{launches}; band: where it breaks even, {INTERVAL}"
        else:
            question = "How long is a step on links of which bandwidth?"
        figure.suptitle(f"{question}\n{launches}")
        marks = [legend_mark(name, marker=MARKS[name], linestyle=LINES[name]) for name in compressions]
        add_legend(figure, [], marks)
    return figure


def _draw_model(panel: Any, points: pd.DataFrame, model: LinkModel) -> None:
    style = STYLES[model.point["framework"]]
    slow, fast = model.links
    links = np.geomspace(slow / 1.5, fast * 1.5, SAMPLES)
    good = points[points["status"] == "ok"]
    fixed = {name: value for name, value in model.point.items() if value is not None}
    highest = 0.0
    for compression in (name for name in LINES if name in model.local_seconds):
        look = {"color": style.colour, "linewidth": 1.1, "linestyle": LINES[compression]}
        steps = [1e3 * model.step_seconds(compression, bits_per_second=float(link)) for link in links]
        panel.plot(links, steps, **look)
        mine = choose_rows(good, {**fixed, "compression": compression})
        mine = mine[mine["link_bits_per_second"].notna()]
        medians = 1e3 * mine["step_seconds_median"].astype(float)
        panel.plot(
            mine["link_bits_per_second"].astype(float), medians, color=style.colour, linestyle="", markersize=4,
            marker=MARKS[compression], markerfacecolor="none",
        )  # fmt: skip
        highest = max(highest, float(medians.max()) if len(medians) else 0.0)
        span = model.break_even_span(compression) if compression != "none" else None
        if span and math.isfinite(span.centre) and span.centre > 0:
            panel.axvline(span.centre, color=style.colour, linewidth=0.8, linestyle=LINES[compression])
            if not any(
                map(math.isnan, (span.low, span.high))
            ):  # an end beyond all links is at the edge of what is drawn
                low, high = np.clip([span.low, span.high], links[0], links[-1])
                panel.axvspan(low, high, color=style.colour, alpha=0.12, linewidth=0)
            panel.annotate(
                f"{compression}: {show_bandwidth(span.centre)}", (span.centre, 0.98), rotation=90, va="top", ha="right",
                xycoords=("data", "axes fraction"), fontsize=7,
            )  # fmt: skip
    panel.set_xscale("log")
    panel.set_ylim(0, 1.1 * highest if highest else None)
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if fast / slow < FEW_POWERS else (1.0,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show_bandwidth(value)))
