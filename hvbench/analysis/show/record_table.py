"""Some records of a run -> a table: a row a point, or several, led by the axes that vary, then what its launches say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import stated_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, head_axes, leading_axes, show_axes
from hvbench.analysis.stats.estimates import sort_points
from hvbench.records.record import Record

Row = tuple[dict[str, Any], list[str]]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column for readers, behind the axes."""

    header: str
    is_number: bool = True


@dataclass(frozen=True, kw_only=True)
class RecordLayout:
    """What such a table shows: `fill` turns a point's launches into rows, each of raw values by name and the cells of `columns`."""

    name: str
    title: str
    notes: tuple[str, ...]
    columns: Sequence[Column]  # behind the axes
    is_wanted: Callable[[Record], bool]
    fill: Callable[[Sequence[Record]], Iterable[Row]]


def tabulate_records(run: Run, layout: RecordLayout) -> Table:
    """The rows of each point with a wanted record."""
    points = sort_points(run.points_of(layout.is_wanted).drop_duplicates("point_id"))
    axes = leading_axes(points)
    rows, cells = [], []
    for _, point in points.iterrows():
        same = [record for record in run.records_by_point[point["point_id"]] if layout.is_wanted(record)]
        for values, texts in layout.fill(same):
            rows.append({name: point[name] for name in ("point_id", *stated_axes(points))} | values)
            cells.append([*show_axes(axes, point), *texts])
    header = (*head_axes(axes), *(column.header for column in layout.columns))
    return Table(
        name=layout.name,
        title=layout.title,
        constants=describe_constants(points, without=("framework",)),
        notes=layout.notes,
        data=pd.DataFrame(rows),
        header=header,
        is_number=(*are_numbers(axes, points), *(column.is_number for column in layout.columns)),
        is_brief=(True,) * len(header),
        cells=cells,
    )
