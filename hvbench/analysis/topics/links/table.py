"""The table "Steps by link": what a step takes on each link, what compression makes of it, and how long it waits for the wire."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number, show_value
from hvbench.analysis.show.tables import Table, describe_constants, describe_lost, head_axes
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.paired_steps import (
    find_launches,
    show_difference,
    show_ends,
    show_ratio,
    spread_columns,
    step_difference,
    step_ratios,
)

LINK = "link_bits_per_second"


def select_linked(run: Run) -> pd.DataFrame:
    """The launches on shaped links whose steps were measured."""
    points = run.points
    return points[(points["status"] == "ok") & points[STEP].notna() & points[LINK].notna()]


def links_table(run: Run) -> Table:
    """One row per point on a shaped link, of runs with two links or more."""
    points, good = run.points, select_linked(run)
    varying = [name for name in run.other_axes if name not in ("compression", LINK)]
    pairs = {}
    for point_id, launches in good[good["compression"] != "none"].groupby("point_id", sort=False):
        plain = find_launches(good, launches.iloc[0].to_dict(), changed={"compression": "none"})
        if len(plain):
            pairs[str(point_id)] = (str(plain["point_id"].iloc[0]), str(point_id))
    ratios = step_ratios(run, pairs)
    rows, data = [], []
    for point_id, launches in sorted(
        good.groupby("point_id", sort=False), key=lambda group: _place(group[1].iloc[0], good)
    ):
        point = {name: launches[name].iloc[0] for name in AXES}
        ratio = ratios.get(str(point_id))
        same = find_launches(good, point, changed={}, free=(LINK,))
        fastest = same[same[LINK] == same[LINK].max()]
        waiting = step_difference(launches, fastest) if point[LINK] != same[LINK].max() else None
        step = estimate_rate(launches[STEP].astype(float).tolist())
        rows.append(
            [
                str(point["framework"]), *(show_value(point[name]) for name in varying), show_bandwidth(float(point[LINK])),
                str(point["compression"]), str(step.n), format_number(1e3 * step.centre, decimals=1), show_ends(step, scale=1e3),
                show_ratio(ratio), show_difference(waiting),
            ]
        )  # fmt: skip
        data.append(
            {**point, "launches_ok": step.n}
            | spread_columns(STEP, step.centre, step.low, step.high)
            | spread_columns("uncompressed_to_compressed", *((ratio.ratio, ratio.low, ratio.high) if ratio else ()))
            | spread_columns("exposed_seconds", *((waiting.centre, waiting.low, waiting.high) if waiting else ()))
        )
    return Table(
        name="links",
        title="Steps by link",
        constants=describe_constants(points, without=("framework", "compression")),
        notes=(
            f"Steps: geometric mean of the launches' medians. Compression wins by: uncompressed over compressed step time on the same link, "
            f"round by round, {INTERVAL} in brackets, corrected for all rows; below 1 it loses. Waiting for the "
            "wire: what a step takes longer than on the fastest link, exposed communication that the link adds; mean of the pairs' differences.",
            *describe_lost(points),
        ),
        data=pd.DataFrame(data),
        header=(
            "framework", *head_axes(varying), "link", "compression", "n", "step median (ms)", f"{INTERVAL} (ms)", "compression wins by",
            "waiting for the wire (ms)",
        ),
        is_number=(False, *(False for _ in varying), False, False, True, True, True, True, True),
        is_brief=(True,) * (8 + len(varying)),
        cells=rows,
    )  # fmt: skip


def _place(row: pd.Series, points: pd.DataFrame) -> tuple[Any, ...]:
    """Where the table has a point: a block a framework and compression, in it slow links first."""
    return (*(order_values(name, points[name]).index(row[name]) for name in ("framework", "compression")), row[LINK])
