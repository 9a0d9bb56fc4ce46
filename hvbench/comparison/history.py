"""One metric over the stored runs of a suite on one machine: run by run, and where it changed. Pure.

Changes are found by PELT on the logarithm (Killick et al. 2012, arXiv:1101.1438; the library ruptures): the fewest steps
that explain the runs, a step paid for with a penalty that the noise between neighbouring runs sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.frame.axes import AXES, LEADING_AXES, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import Metric, measure_parts
from hvbench.analysis.frame.samples import sort_records
from hvbench.analysis.stats.estimates import Estimate, estimate_rate
from hvbench.comparison.sides import describe_point
from hvbench.records.record import Record

MIN_RUNS = 6  # in fewer, a step cannot be distinguished from noise
MIN_SEGMENT = 2  # runs between two steps: one run alone is an outlier, not a change
PENALTY = (
    4.0  # times the variance of the noise and the logarithm of the number of runs: 6 to 12 % of flat lines show a step
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One point in one run."""

    run: str
    created_at: str
    estimate: Estimate
    change: float | None = None  # a step begins here: this level over the one before, 0.05 is 5 % more


@dataclass(frozen=True, kw_only=True)
class Line:
    """One point over the runs, oldest first."""

    label: str
    entries: tuple[Entry, ...]


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
    found: dict[str, list[Entry]] = {}
    points = {}
    for name, created_at, records in runs:
        for point_id, values in _values(records, metric).items():
            found.setdefault(point_id, []).append(
                Entry(run=name, created_at=created_at, estimate=estimate_rate(values))
            )
        points |= {record.point_id: record.point for record in records}
    varying = _varying([record for _, _, records in runs for record in records])
    return [Line(label=describe_point(points[key], varying), entries=mark_changes(found[key])) for key in sorted(found)]


def mark_changes(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """`entries` with the size of every step where it begins."""
    values = [entry.estimate.centre for entry in entries]
    starts = [0, *find_changes(values), len(values)]
    levels = [float(np.mean(np.log(values[a:b]))) for a, b in zip(starts, starts[1:], strict=False)]
    changes = {start: math.expm1(levels[i + 1] - levels[i]) for i, start in enumerate(starts[1:-1])}
    return tuple(Entry(**{**vars(entry), "change": changes.get(index)}) for index, entry in enumerate(entries))


def find_changes(values: Sequence[float]) -> list[int]:
    """Positions at which a new level begins; none in fewer than six runs. ValueError on values <= 0."""
    if min(values, default=1.0) <= 0:
        raise ValueError("a history needs values above 0")
    if len(values) < MIN_RUNS:
        return []
    import ruptures

    logs = np.log(np.asarray(values, dtype=float))
    # Neighbouring runs differ by noise, and rarely by a step: the median of their differences estimates the noise alone.
    noise = float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2))
    penalty = PENALTY * max(noise, 1e-6) ** 2 * math.log(len(logs))
    search = ruptures.Pelt(model="l2", min_size=MIN_SEGMENT, jump=1).fit(logs.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=penalty)[:-1]]


def _values(records: Sequence[Record], metric: Metric) -> Mapping[str, list[float]]:
    """Point -> the metric of each of its `ok` launches; a point is left out if one of its launches lacks the metric."""
    ordered = sort_records(records)
    rows = point_frame(ordered)
    columns = rows[metric.name].to_numpy(dtype="float64", na_value=np.nan) if metric.name in rows else None
    found: dict[str, list[float]] = {}
    for index, record in enumerate(ordered):
        if rows["status"].iloc[index] != "ok":
            continue
        value = columns[index] if columns is not None else measure_parts(record).get(metric.name, math.nan)
        found.setdefault(record.point_id, []).append(float(value))
    return {key: values for key, values in found.items() if all(math.isfinite(value) and value > 0 for value in values)}


def _varying(records: Sequence[Record]) -> list[str]:
    import pandas as pd

    points = {record.point_id: record.point.model_dump() for record in records}
    varying = varying_axes(pd.DataFrame(points.values(), columns=list(AXES)))
    return varying or list(LEADING_AXES)
