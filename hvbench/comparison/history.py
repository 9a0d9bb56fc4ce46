"""One metric over the stored runs of a suite on one machine: run by run, and where it changed (`hvbench.comparison.changes`). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import Metric, measure_parts
from hvbench.analysis.frame.samples import sort_records
from hvbench.analysis.stats.estimates import Estimate, estimate_rate
from hvbench.comparison.changes import find_changes
from hvbench.comparison.sides import choose_axes, describe_point
from hvbench.records.fingerprint import name_revision
from hvbench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One point in one run."""

    run: str
    created_at: str
    estimate: Estimate
    revision: str = ""  # of the script that was run
    change: float | None = None  # a step begins here: this level over the one before, 0.05 is 5 % more


@dataclass(frozen=True, kw_only=True)
class Line:
    """One point over the runs, oldest first."""

    label: str
    entries: tuple[Entry, ...]
    point_id: str = ""


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One metric of one run: point -> its value of each launch, as `values_of` gives them."""

    name: str
    created_at: str
    values: Mapping[str, Sequence[float]]
    revision: str = ""  # of the script that was run


@dataclass(frozen=True, kw_only=True)
class History:
    """One metric of a suite over the stored runs of one machine with one set of software."""

    metric: Metric
    suite: str
    fingerprint: str
    runs: int
    other_runs: int  # of other machines or software, left out
    lines: tuple[Line, ...]
    problems: tuple[str, ...] = ()  # a line for each file that could not be read


def trace(runs: Sequence[tuple[str, str, Sequence[Record]]], metric: Metric) -> list[Line]:
    """`metric` of every point over `runs`, each (name, created at, records), oldest first; steps are marked."""
    measured = []
    for name, created_at, records in runs:
        ordered = sort_records(records)
        values = values_of(ordered, point_frame(ordered), metric)
        measured.append(MeasuredRun(name=name, created_at=created_at, values=values, revision=name_revisions(records)))
    points = {record.point_id: record.point for _, _, records in runs for record in records}
    varying = choose_axes(points.values())
    return trace_values(measured, metric, labels={key: describe_point(point, varying) for key, point in points.items()})


def trace_values(runs: Sequence[MeasuredRun], metric: Metric, *, labels: Mapping[str, str]) -> list[Line]:
    """The lines of `metric` over `runs`, oldest first, by point; `labels`: what each point is called."""
    found: dict[str, list[Entry]] = {}
    for run in runs:
        for point_id, values in run.values.items():
            entry = Entry(
                run=run.name, created_at=run.created_at, estimate=estimate_rate(values), revision=run.revision
            )
            found.setdefault(point_id, []).append(entry)
    return [
        Line(label=labels[key], entries=mark_changes(found[key], resolution=metric.resolution), point_id=key)
        for key in sorted(found)
    ]


def name_revisions(records: Sequence[Record]) -> str:
    """The revisions of the script that a run's launches ran; empty where nothing says them."""
    return ", ".join(dict.fromkeys(filter(None, map(name_revision, records))))


def mark_changes(entries: Sequence[Entry], *, resolution: float) -> tuple[Entry, ...]:
    """`entries` with the size of every step where it begins; `resolution` is the metric's."""
    values = [entry.estimate.centre for entry in entries]
    starts = [0, *find_changes(values, resolution=resolution), len(values)]
    levels = [float(np.mean(np.log(values[a:b]))) for a, b in zip(starts, starts[1:], strict=False)]
    changes = {start: math.expm1(levels[i + 1] - levels[i]) for i, start in enumerate(starts[1:-1])}
    return tuple(Entry(**{**vars(entry), "change": changes.get(index)}) for index, entry in enumerate(entries))


def values_of(records: Sequence[Record], rows: pd.DataFrame, metric: Metric) -> dict[str, list[float]]:
    """Point -> the metric of each of its `ok` launches; a point is left out if one of its launches lacks the metric.

    `rows`: `point_frame` of `records`, in their order.
    """
    columns = rows[metric.name].to_numpy(dtype="float64", na_value=np.nan) if metric.name in rows else None
    found: dict[str, list[float]] = {}
    for index, (record, status) in enumerate(zip(records, rows["status"], strict=True)):
        if status != "ok":
            continue
        value = columns[index] if columns is not None else measure_parts(record).get(metric.name, math.nan)
        found.setdefault(record.point_id, []).append(float(value))
    return {key: values for key, values in found.items() if all(math.isfinite(value) and value > 0 for value in values)}
