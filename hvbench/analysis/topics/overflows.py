"""What fp16's narrow range costs: the loss scale over the steps, skipped updates, and where the gradients overflowed.

A gradient can leave fp16's range (65,504) in a rank's own backward pass, or only on the wire: compressed to fp16 it is
summed over the ranks before it is divided, so the more ranks, the less room. Either way the update is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvbench.analysis.frame.axes import varying_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE
from hvbench.analysis.show.panels import (
    MAX_PANELS,
    STYLES,
    Cell,
    Style,
    add_legend,
    choose_rows,
    combine_axes,
    describe_choice,
    draw_panels,
    emulated_precisions,
    fill_grid,
    format_large,
    join_curves,
    legend_mark,
    list_frameworks,
)
from hvbench.analysis.show.record_table import Column, RecordLayout, tabulate_records
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.topic import Need, Topic, never
from hvbench.records.record import RankSamples, Record
from hvbench.spec.numerics import PRECISIONS

COLUMNS = 3


def uses_loss_scale(record: Record) -> bool:
    """Whether its gradients pass through fp16 with a loss scale, and it has left steps."""
    return (
        not record.is_script
        and PRECISIONS[record.point.precision].loss_scaling
        and any(rank.loss_scale for rank in record.ranks)
    )


def count_overflows(record: Record) -> tuple[int, int]:
    """Skipped steps that overflowed in some rank's own gradients, and those that did so on the wire alone."""
    own: dict[int, bool] = {}
    for rank in record.ranks:
        for overflow in rank.overflows:
            own[overflow.step] = own.get(overflow.step, False) or overflow.is_own
    return sum(own.values()), len(own) - sum(own.values())


def used_loss_scale(run: Run) -> bool:
    """Whether any launch used a loss scale."""
    return any(uses_loss_scale(record) for record in run.records)


def show_overflows(same: Sequence[Record]) -> tuple[dict[str, Any], list[str]]:
    """Raw values and cells of a point: skipped steps, where they overflowed, and the scales."""
    own, wire = (sum(counts) for counts in zip(*map(count_overflows, same), strict=True))
    trained = sum(len(record.ranks[0].loss) for record in same)
    skipped = sum(max(len(rank.skipped_steps) for rank in record.ranks) for record in same)
    scales = [record.ranks[0].loss_scale for record in same]
    lowest, highest = min(map(min, scales)), max(map(max, scales))
    values = {
        "n": len(same), "trained_steps": trained, "skipped_steps": skipped, "overflows_own": own, "overflows_on_the_wire": wire,
        "lowest_loss_scale": lowest, "last_loss_scale": scales[-1][-1],
    }  # fmt: skip
    where = [str(own), str(wire)] if skipped else [NOT_AVAILABLE, NOT_AVAILABLE]
    return values, [str(len(same)), str(skipped), *where, f"of {trained} steps", f"{lowest:,.0f} to {highest:,.0f}"]


LAYOUT = RecordLayout(
    name="loss_scale",
    title="Loss scale and overflow",
    notes=(
        "Updates dropped because a gradient was not finite, counted over n launches, and where it overflowed: in some "
        "rank's own gradients, or only on the wire, where fp16 values are summed over the ranks before they are "
        "divided. Each skipped step's batch is looked at again outside the clock to tell.",
    ),
    columns=(
        Column(header="n"),
        Column(header="skipped steps"),
        Column(header="own gradients"),
        Column(header="on the wire"),
        Column(header="trained", is_number=False),
        Column(header="loss scale", is_number=False),
    ),
    is_wanted=uses_loss_scale,
    fill=lambda same: [show_overflows(same)],
)


def overflow_tables(run: Run) -> list[Table]:
    """One row per point that trained in fp16."""
    return [tabulate_records(run, LAYOUT)]


def overflow_plots(run: Run) -> dict[str, Figure]:
    """The one plot."""
    return {"loss_scale": plot_loss_scale(run)}


def plot_loss_scale(run: Run) -> Figure:
    """The loss scale at every step, skipped ones marked."""
    mine = run.points_of(uses_loss_scale)
    choices = combine_axes(mine, [name for name in varying_axes(mine) if name != "framework"])[:MAX_PANELS]
    columns, emulated = min(COLUMNS, len(choices)), emulated_precisions(mine)
    cells = [Cell(title=describe_choice(chosen, emulated=emulated), chosen=chosen) for chosen in choices]
    grid = fill_grid(cells, columns=columns)
    with draw_panels(grid, width=max(3.0, 6.5 / columns), height=2.2, x_label="step") as (figure, panels):
        for panel, chosen in panels:
            for framework, launches in choose_rows(mine, chosen).groupby("framework"):
                _draw_scales(panel, [run.records[launch].ranks[0] for launch in launches["launch"]], STYLES[framework])
            panel.set_yscale("log", base=2)
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            panel.yaxis.set_major_formatter(FuncFormatter(format_large))
        figure.supylabel("loss scale")
        figure.suptitle("What does fp16's narrow range cost?")
        add_legend(figure, list_frameworks(mine), [legend_mark("update dropped: gradients not finite", marker="x")])
    return figure


def _draw_scales(panel: Axes, ranks: Sequence[RankSamples], style: Style) -> None:
    """One framework's launches, a rank of each: its loss scale at every step, and a cross where an update was dropped."""
    scales = pd.DataFrame(
        [(launch, step + 1, scale) for launch, rank in enumerate(ranks) for step, scale in enumerate(rank.loss_scale)],
        columns=["launch", "step", "scale"],
    )
    line = join_curves(scales["step"], scales["scale"], launch=scales["launch"])
    look = {"linestyle": style.line, "linewidth": style.line_width}
    panel.plot(*line, drawstyle="steps-mid", color=style.colour, **look)
    skipped = [
        (step + 1, rank.loss_scale[step])
        for rank in ranks
        for step in rank.skipped_steps
        if step < len(rank.loss_scale)
    ]
    panel.plot([step for step, _ in skipped], [scale for _, scale in skipped], "x", markersize=5, color=style.colour)


TOPIC = Topic(
    name="Loss scale",
    question="What does fp16's narrow range cost?",
    needs=Need(words="launches in fp16 with a loss scale", is_met=used_loss_scale),
    tables=overflow_tables,
    plots=overflow_plots,
    is_in_terminal=never,
)
