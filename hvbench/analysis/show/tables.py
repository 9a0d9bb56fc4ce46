"""Summaries of launches -> tables: a row a point, led by the axes that vary; what all points share is stated once above."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from hvbench.analysis.frame.axes import KNOBS, PRESET_SIZES, are_scripts, stated_axes, varying_axes
from hvbench.analysis.show.cells import NOT_AVAILABLE, Row, head_axis, show_axis
from hvbench.analysis.stats.estimates import ESTIMATORS, list_rows, take_largest, with_interval
from hvbench.analysis.stats.seeds import OF_SEEDS
from hvbench.records.record import NOT_PROVEN
from hvbench.spec.effect import find_missing

MAX_NAMED = 8  # points that a note names one by one
UNSAFE = r"[^\w .,()/+-]"  # in the names of points in a note


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready to be rendered: `data` holds raw values, `cells` the (unescaped) text of the same rows."""

    name: str
    title: str
    constants: dict[str, str]
    notes: tuple[str, ...]
    data: pd.DataFrame
    header: tuple[str, ...]
    is_number: tuple[bool, ...]
    is_brief: tuple[bool, ...]
    cells: list[list[str]]


@dataclass(frozen=True)
class Shown:
    """One column for readers: its header, and how a row of the summary becomes text.

    `metric` names the estimate whose interval it shows; `is_brief` keeps it where a line has to be short.
    """

    header: str
    text: Callable[[Row], str]
    is_number: bool = True
    is_brief: bool = False
    metric: str | None = None


def describe_constants(points: pd.DataFrame, *, without: Collection[str] = ()) -> dict[str, str]:
    """Field -> value of what every point shares, `without` some and those that change nothing at any of them.

    A size that `model` implies differs with it and is not listed then.
    """
    varying = set(varying_axes(points))
    axes = [name for name in stated_axes(points) if not (name == "framework" and are_scripts(points))]
    fixed = [name for name in axes if name not in varying and points[name].nunique(dropna=False) == 1]
    chosen = [name for name in fixed if not (name in PRESET_SIZES and "model" in varying) and _has_effect(points, name)]
    emulated = bool(points["is_emulated"].any())
    return {name: show_axis(name, points[name].iloc[0], is_emulated=emulated) for name in chosen if name not in without}


def _has_effect(points: pd.DataFrame, name: str) -> bool:
    """Whether a field changes anything at any of the points: LoRA's rank does not where everything trains."""
    knob = KNOBS.get(name)
    if knob is None or not knob.needs:
        return True
    needed = points[list(dict.fromkeys(need.field for need in knob.needs))].drop_duplicates()
    rows = [{key: None if pd.isna(value) else value for key, value in row.items()} for row in list_rows(needed)]
    return any(find_missing(knob, row.__getitem__) is None for row in rows)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a table of points shows: `columns` for readers, and as raw values `metrics` with their intervals and `extra`."""

    name: str
    title: str
    columns: Sequence[Shown]
    metrics: Sequence[str]
    notes: tuple[str, ...]
    extra: Sequence[str] = ()
    has_status: bool = True


def build_table(layout: Layout, points: pd.DataFrame, *, summary: pd.DataFrame) -> Table:
    """One row per point of `summary` (`summarize_launches(points)`): the axes that vary, n, those columns that any point has, status."""
    rows = list_rows(summary)
    leading = [
        Shown(
            head_axis(axis),
            partial(_show_axis_of, axis),
            is_number=is_number(summary[axis]),
            is_brief=True,
        )
        for axis in leading_axes(points)
    ]
    launches = Shown("n", lambda row: str(row["launches_ok"]), is_brief=True)
    status = Shown("status", _show_status, is_number=False, is_brief=True)
    # What no point has (device memory on a CPU, a target, an interval of one launch) would only take room.
    known = [
        column
        for column in layout.columns
        if any(column.text(row) != NOT_AVAILABLE and _has_interval(row, column.metric) for row in rows)
    ]
    shown = [*leading, launches, *known, *([status] if layout.has_status else [])]
    raw = [
        key
        for metric in layout.metrics
        for key in ([metric] if ESTIMATORS[metric] is take_largest else with_interval(metric))
    ]
    return Table(
        name=layout.name,
        title=layout.title,
        constants=describe_constants(points, without=("framework",)),
        notes=layout.notes,
        data=summary[
            [
                "point_id",
                *stated_axes(summary),
                "launches",
                "launches_ok",
                "status",
                "reason",
                "parity",
                *layout.extra,
                *raw,
            ]
        ],
        header=tuple(column.header for column in shown),
        is_number=tuple(column.is_number for column in shown),
        is_brief=tuple(column.is_brief for column in shown),
        cells=[[column.text(row) for column in shown] for row in rows],
    )


def describe_lost(points: pd.DataFrame) -> tuple[str, ...]:
    """A note that names the launches which did not end in `ok`, for a table whose figures leave them out; none where all did."""
    bad = points[points["status"] != "ok"]
    if bad.empty:
        return ()
    axes, named = leading_axes(points), []
    whole = points["point_id"].value_counts()
    lost = bad.groupby("point_id", sort=False)
    for point_id, launches in itertools.islice(lost, MAX_NAMED):
        first = list_rows(launches.head(1))[0]
        values = [f"{head} {cell}" for head, cell in zip(head_axes(axes), show_axes(axes, first), strict=True)]
        counts = ", ".join(f"{count} {status}" for status, count in launches["status"].value_counts().items())
        # A note is written as it stands, and a point's values are what somebody typed.
        name = re.sub(UNSAFE, "?", ", ".join(values)) or "the one configuration"
        named.append(f"{name}: {counts} of {whole[point_id]}")
    more = [f"{lost.ngroups - MAX_NAMED} points more"] if lost.ngroups > MAX_NAMED else []
    return (f"Launches that did not end in ok, in no figure of this table: {'; '.join([*named, *more])}.",)


def leading_axes(points: pd.DataFrame) -> list[str]:
    """The framework, if hvbench knows it, then the other axes that vary: the first columns of a table of points."""
    return [
        *([] if are_scripts(points) else ["framework"]),
        *(axis for axis in varying_axes(points) if axis != "framework"),
    ]


def show_axes(axes: Sequence[str], point: Row) -> list[str]:
    """The cells of these axes of a point."""
    return [_show_axis_of(axis, point) for axis in axes]


def head_axes(axes: Sequence[str]) -> list[str]:
    """The headers of these axes."""
    return [head_axis(axis) for axis in axes]


def are_numbers(axes: Sequence[str], points: pd.DataFrame) -> list[bool]:
    """Whether each axis is a number, which a table aligns to the right."""
    return [is_number(points[axis]) for axis in axes]


def is_number(values: pd.Series) -> bool:
    """Whether a column has numbers, and not switches."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _show_axis_of(axis: str, row: Row) -> str:
    return show_axis(axis, row[axis], is_emulated=bool(row["is_emulated"]))


def _has_interval(row: Row, metric: str | None) -> bool:
    if metric is None or not pd.isna(row[f"{metric}_low"]):
        return True
    return metric in OF_SEEDS and not pd.isna(row[metric]) and row["launches_ok"] > 1  # it says why there is none


def _show_status(row: Row) -> str:
    status = row["status"] if pd.isna(row["reason"]) else f"{row['status']} ({row['reason']})"
    return f"{status}, NOT the same work" if row["parity"] == NOT_PROVEN else status
