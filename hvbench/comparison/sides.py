"""Records -> the sides of a comparison: which launches of which point are on which side, and what the point is called.

Launches are joined by point, or by all fields of the point but those that are meant to differ. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import AXES, LEADING_AXES, order_values, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import METRICS, measure_parts
from hvbench.analysis.frame.samples import LaunchSamples, make_samples, sort_records
from hvbench.analysis.stats.estimates import describe_end
from hvbench.comparison.result import LaunchSet
from hvbench.records.record import Record
from hvbench.spec.point import Point


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


Side = dict[str, list[LaunchValues]]  # point without the joined fields -> its launches


def split_by(sets: Sequence[LaunchSet], axis: str) -> list[LaunchSet]:
    """The launches of all sets as one set a value of `axis` and job, in the order that Point declares its values."""
    by_value: dict[Any, list[tuple[str, Record]]] = {}
    for launches in sets:
        for record in launches.records:
            by_value.setdefault(getattr(record.point, axis), []).append((launches.job, record))
    arms = []
    for value in order_values(axis, by_value):
        for job in dict.fromkeys(job for job, _ in by_value[value]):
            records = [record for owner, record in by_value[value] if owner == job]
            arms.append(LaunchSet(name=str(value), records=records, job=job))
    return arms


def collect_sides(sets: Sequence[LaunchSet], *, joined_over: Collection[str]) -> dict[str, Side]:
    """Name -> side; sets of the same name are one side."""
    sides: dict[str, Side] = {}
    for launches in sets:
        side = sides.setdefault(launches.name, {})
        for launch in measure_launches(launches):
            side.setdefault(key_of(launch.record, joined_over=joined_over), []).append(launch)
    return sides


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
    return json.dumps(record.point.model_dump(exclude=set(joined_over)), sort_keys=True)


def label_points(sets: Sequence[LaunchSet], *, joined_over: Collection[str]) -> dict[str, str]:
    """Key of a point -> the fields in which the points differ, in words; where they differ in none, the leading fields."""
    points = {key_of(record, joined_over=joined_over): record.point for launches in sets for record in launches.records}
    frame = pd.DataFrame([point.model_dump() for point in points.values()], columns=list(AXES))
    varying = [axis for axis in varying_axes(frame) if axis not in joined_over]
    shown = varying or [axis for axis in LEADING_AXES if axis not in joined_over]
    return {key: describe_point(point, shown) for key, point in points.items()}


def describe_point(point: Point, axes: Sequence[str]) -> str:
    """`pytorch b8x4 bf16 compression=fp16`: values that are clear by themselves have no name before them."""
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
