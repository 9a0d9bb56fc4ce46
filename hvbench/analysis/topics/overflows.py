"""What fp16's narrow range costs: the loss scale's way, skipped updates, and where the gradients overflowed.

A gradient can leave fp16's range (65,504) in a rank's own backward pass, or only on the wire: compressed to fp16 it is
summed over the ranks before it is divided, so the more ranks, the less room. Either way the update is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvbench.analysis.frame.axes import AXES, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.samples import sort_records
from hvbench.analysis.show.panels import (
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    describe_choice,
    draw_panels,
    emulated_precisions,
    format_large,
    legend_mark,
    list_frameworks,
)
from hvbench.analysis.show.tables import HEADERS, NOT_AVAILABLE, Table, describe_constants, show_axis
from hvbench.analysis.stats.estimates import sort_points
from hvbench.records.record import Record
from hvbench.spec.numerics import PRECISIONS

MAX_PANELS = 12
COLUMNS = 3


def uses_loss_scale(record: Record) -> bool:
    """Whether its gradients pass through fp16 with a loss scale, and it has left steps."""
    return PRECISIONS[record.point.precision].loss_scaling and any(rank.loss_scale for rank in record.ranks)


def count_overflows(record: Record) -> tuple[int, int]:
    """Skipped steps that overflowed in some rank's own gradients, and those that did so on the wire alone."""
    own: dict[int, bool] = {}
    for rank in record.ranks:
        for overflow in rank.overflows:
            own[overflow.step] = own.get(overflow.step, False) or overflow.is_own
    return sum(own.values()), len(own) - sum(own.values())


def overflow_table(records: Sequence[Record]) -> Table | None:
    """One row per point that trained in fp16: skipped steps, where they overflowed, and the scales; None without any."""
    scaled = [record for record in records if uses_loss_scale(record)]
    if not scaled:
        return None
    points = sort_points(point_frame(scaled).drop_duplicates("point_id"))
    axes = ["framework", *(axis for axis in varying_axes(points) if axis != "framework")]
    rows, cells = [], []
    for _, point in points.iterrows():
        same = sort_records(record for record in scaled if record.point_id == point["point_id"])
        counts = [count_overflows(record) for record in same]
        own, wire = (sum(count[index] for count in counts) for index in (0, 1))
        trained = sum(len(record.ranks[0].loss) for record in same)
        skipped = sum(max(len(rank.skipped_steps) for rank in record.ranks) for record in same)
        scales = [record.ranks[0].loss_scale for record in same]
        row = {name: point[name] for name in ("point_id", *AXES)} | {
            "n": len(same), "trained_steps": trained, "skipped_steps": skipped,
            "overflows_own": own, "overflows_on_the_wire": wire,
            "lowest_loss_scale": min(map(min, scales)), "last_loss_scale": scales[-1][-1],
        }  # fmt: skip
        rows.append(row)
        cells.append(
            [
                *(show_axis(axis, point[axis], is_emulated=bool(point["is_emulated"])) for axis in axes),
                str(len(same)),
                str(skipped),
                str(own) if skipped else NOT_AVAILABLE,
                str(wire) if skipped else NOT_AVAILABLE,
                f"of {trained} steps",
                f"{row['lowest_loss_scale']:,.0f} to {max(map(max, scales)):,.0f}",
            ]
        )
    numeric = [pd.api.types.is_numeric_dtype(points[axis]) for axis in axes]
    return Table(
        name="loss_scale",
        title="Loss scale and overflow",
        constants={name: value for name, value in describe_constants(points).items() if name != "framework"},
        notes=(
            "Updates dropped because a gradient was not finite, counted over n launches, and where it overflowed: in some "
            "rank's own gradients, or only on the wire, where fp16 values are summed over the ranks before they are "
            "divided. Each skipped step's batch is looked at again outside the clock to tell.",
        ),
        data=pd.DataFrame(rows),
        header=(
            *(HEADERS.get(axis, axis) for axis in axes),
            "n", "skipped steps", "own gradients", "on the wire", "trained", "loss scale",
        ),
        is_number=(*numeric, True, True, True, True, False, False),
        is_brief=(True,) * (len(axes) + 6),
        cells=cells,
    )  # fmt: skip


def plot_loss_scale(points: pd.DataFrame, records: Sequence[Record]) -> Figure | None:
    """The loss scale at every step, skipped ones marked; None where none was used. `points` is `point_frame(records)`."""
    launches = {launch: record for launch, record in enumerate(sort_records(records)) if uses_loss_scale(record)}
    if not launches:
        return None
    mine = points[points["launch"].isin(list(launches))]
    choices = combine_axes(mine, [name for name in varying_axes(mine) if name != "framework"])[:MAX_PANELS]
    columns, emulated = min(COLUMNS, len(choices)), emulated_precisions(mine)
    cells = [Cell(title=describe_choice(chosen, emulated=emulated), chosen=chosen) for chosen in choices]
    grid = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    with draw_panels(grid, width=max(3.0, 6.5 / columns), height=2.2, x_label="step") as (figure, panels):
        for panel, chosen in panels:
            for _, launch in choose_rows(mine, chosen).iterrows():
                rank, style = launches[launch["launch"]].ranks[0], STYLES[launch["framework"]]
                look = {"color": style.colour}
                steps = range(1, len(rank.loss_scale) + 1)
                panel.plot(
                    steps,
                    rank.loss_scale,
                    drawstyle="steps-mid",
                    linestyle=style.line,
                    linewidth=style.line_width,
                    **look,
                )
                skipped = [step for step in rank.skipped_steps if step < len(rank.loss_scale)]
                panel.plot(
                    [step + 1 for step in skipped],
                    [rank.loss_scale[step] for step in skipped],
                    "x",
                    markersize=5,
                    **look,
                )
            panel.set_yscale("log", base=2)
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            panel.yaxis.set_major_formatter(FuncFormatter(format_large))
        figure.supylabel("loss scale")
        figure.suptitle("What does fp16's narrow range cost?")
        add_legend(figure, list_frameworks(mine), [legend_mark("update dropped: gradients not finite", marker="x")])
    return figure
