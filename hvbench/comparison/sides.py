"""Records -> the sides of a comparison: which launches of which point are on which side, and what the point is called.

Launches are joined by point, or by all fields of the point but those that are meant to differ. Pure.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import (
    LEADING_AXES,
    OF_SCRIPTS,
    are_scripts,
    axes_of,
    axis_values,
    is_own,
    order_values,
    plain_name,
    tabulate_points,
    varying_axes,
)
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import METRICS, measure_parts
from hvbench.analysis.frame.samples import LaunchSamples, make_samples, sort_records
from hvbench.analysis.stats.estimates import describe_end
from hvbench.comparison.result import LaunchSet
from hvbench.records.record import Record
from hvbench.spec.point import AnyPoint
from hvbench.spec.script import ScriptPoint, name_program, show_value


@dataclass(frozen=True, kw_only=True)
class LaunchValues:
    """What of one launch is compared."""

    record: Record
    job: str
    ended: str | None  # how, where it did not end in ok
    values: Mapping[str, float]  # metric -> value, where it is finite and above 0

    @cached_property
    def samples(self) -> LaunchSamples:
        """The samples of a launch that ended in `ok`."""
        return make_samples(self.record)


@dataclass(frozen=True, kw_only=True)
class MeasuredSet(LaunchSet):
    """A side whose metrics are known already: for one that is compared with several others."""

    launches: Sequence[LaunchValues]


Side = dict[str, list[LaunchValues]]  # point without the joined fields -> its launches


def split_by(sets: Sequence[LaunchSet], axis: str) -> list[LaunchSet]:
    """The launches of all sets as one set a value of `axis` and job, in the order that Point declares its values."""
    by_value: dict[Any, list[tuple[str, Record]]] = {}
    for launches in sets:
        for record in launches.records:
            by_value.setdefault(axis_values(record.point).get(axis), []).append((launches.job, record))
    arms = []
    for value in order_values(axis, by_value):
        for job in dict.fromkeys(job for job, _ in by_value[value]):
            records = [record for owner, record in by_value[value] if owner == job]
            name = show_value(value) if is_own(axis) else str(value)
            arms.append(LaunchSet(name=name, records=records, job=job))
    return arms


def collect_sides(sets: Sequence[LaunchSet], *, joined_over: Collection[str]) -> dict[str, Side]:
    """Name -> side; sets of the same name are one side."""
    sides: dict[str, Side] = {}
    for launches in sets:
        side = sides.setdefault(launches.name, {})
        measured = launches.launches if isinstance(launches, MeasuredSet) else measure_launches(launches)
        for launch in measured:
            side.setdefault(key_of(launch.record, joined_over=joined_over), []).append(launch)
    return sides


def measure(launches: LaunchSet) -> MeasuredSet:
    """A side with the metrics of its launches."""
    return MeasuredSet(
        name=launches.name, records=launches.records, job=launches.job, launches=measure_launches(launches)
    )


def measure_launches(launches: LaunchSet) -> list[LaunchValues]:
    """Every launch of a set with its metrics, repeat by repeat."""
    records = sort_records(launches.records)
    rows = point_frame(records, metrics=[metric.name for metric in METRICS])
    ends = [describe_failure(row) for row in rows[["status", "phase", "message"]].itertuples()]
    columns = {metric.name: _column(rows, metric.name) for metric in METRICS if metric.name in rows}
    found = []
    for index, record in enumerate(records):
        values = {name: column[index] for name, column in columns.items()} | measure_parts(record)
        values = {name: value for name, value in values.items() if np.isfinite(value) and value > 0}
        found.append(LaunchValues(record=record, job=launches.job, ended=ends[index], values=values))
    return found


def _column(rows: pd.DataFrame, name: str) -> list[float]:
    return rows[name].to_numpy(dtype="float64", na_value=np.nan).tolist()


def describe_failure(row: Any) -> str | None:
    """How a launch ended, with the reason; None where it ended in `ok`."""
    if row.status == "ok":
        return None
    reason = describe_end(pd.Series({"phase": row.phase, "message": row.message}))
    return f"{row.status} ({reason})" if reason else str(row.status)


def key_of(record: Record, *, joined_over: Collection[str]) -> str:
    """What the two sides of a point have in common."""
    if not joined_over:
        return record.point_id
    kept = {name: value for name, value in axis_values(record.point).items() if not is_joined(name, joined_over)}
    return json.dumps(kept, sort_keys=True)


def is_joined(axis: str, joined_over: Collection[str]) -> bool:
    """Whether points are joined over an axis; one of a script may be called by its name alone."""
    return axis in joined_over or (is_own(axis) and plain_name(axis) in joined_over)


def label_points(sets: Sequence[LaunchSet], *, joined_over: Collection[str]) -> dict[str, str]:
    """Key of a point -> the fields in which the points differ, in words; where they differ in none, the leading fields."""
    points = {key_of(record, joined_over=joined_over): record.point for launches in sets for record in launches.records}
    shown = choose_axes(points.values(), joined_over=joined_over)
    return {key: describe_point(point, shown) for key, point in points.items()}


def choose_axes(points: Iterable[AnyPoint], *, joined_over: Collection[str] = ()) -> list[str]:
    """The axes that distinguish points; where none does, those that say most: the leading ones, of scripts their own."""
    frame = tabulate_points(points)
    varying = [axis for axis in varying_axes(frame) if not is_joined(axis, joined_over)]
    leading = filter(is_own, axes_of(frame.columns)) if are_scripts(frame) else LEADING_AXES
    return varying or [axis for axis in leading if not is_joined(axis, joined_over)]


def describe_point(point: AnyPoint, axes: Sequence[str]) -> str:
    """`pytorch b8x4 bf16 compression=fp16`: values that are clear by themselves have no name before them. Of a script `batch=8`."""
    if isinstance(point, ScriptPoint):
        return describe_script(point, axes)
    words = []
    for axis in axes:
        value = getattr(point, axis)
        if axis == "micro_batch_size":
            words.append(f"b{value}")
        elif axis == "gradient_accumulation_steps":
            follows_batch = words and words[-1] == f"b{point.micro_batch_size}"
            words.append(f"{words.pop() if follows_batch else ''}x{value}")
        else:
            words.append(str(value) if axis in ("framework", "model", "precision") else f"{axis}={value}")
    return " ".join(words)


def describe_script(point: ScriptPoint, axes: Sequence[str]) -> str:
    """`batch=8 dtype=bf16`, the command where it is what differs, or the script's name where nothing is."""
    values = axis_values(point)
    words = [
        f"{plain_name(axis)}={shlex.quote(str(values[axis])) if axis in OF_SCRIPTS else show_value(values[axis])}"
        for axis in axes
        if axis in values and axis != "framework"
    ]
    return " ".join(words) or name_program(point.command)
