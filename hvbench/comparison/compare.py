"""Two or more sets of launches -> comparisons, point by point. Pure: records in, figures and words out.

Sets are joined by point, or by everything but the fields that are meant to differ (`ignore`, `split_by`). What could
not be compared is named: points of one side only, launches that did not end in `ok`, another machine, frameworks that
did not train alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import AXES, LEADING_AXES, PRESET_SIZES, order_values, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.metrics import METRICS, STEP, Metric, measure_parts
from hvbench.analysis.frame.samples import make_samples, sort_records
from hvbench.analysis.stats.estimates import Estimate, describe_end, estimate_rate
from hvbench.analysis.stats.ratios import Ratio, adjust_holm, log_ratios, log_shift, ratio_of_pairs, welch_ratio
from hvbench.analysis.topics.parity.agreement import LOSS_TOLERANCES, compare_losses
from hvbench.analysis.topics.parity.losses import LossChange, find_loss_change
from hvbench.records.fingerprint import FOLLOWS_FROM, describe_fingerprint, find_differences
from hvbench.records.record import Record
from hvbench.spec.point import Point

MIN_LAUNCHES = 6  # a side; below them there is no verdict
MARGIN = 0.03  # a change that is smaller is none
SIGNIFICANT = 0.05  # after correction for the number of points (decisive metrics) or of all figures (shown ones)


@dataclass(frozen=True, kw_only=True)
class LaunchSet:
    """One side of a comparison. Sets with the same `job` were interleaved: their repeats are pairs."""

    name: str
    records: Sequence[Record]
    job: str


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What of one launch is compared."""

    record: Record
    job: str
    ended: str | None  # how, where it did not end in ok
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric of one point on two sides."""

    metric: Metric
    a: Estimate
    b: Estimate
    ratio: Ratio
    worse_by: tuple[float, ...]  # per pair: log ratio, positive where B is worse; empty where nothing was paired
    adjusted_p_value: float | None = None
    call: str | None = None  # worse, better, same, unclear; None: no words, only figures

    @property
    def worse(self) -> tuple[float, float | None, float | None]:
        """Estimate and interval of "worse by", as fractions: 0.05 is 5 % worse, whichever way the metric counts."""
        values = (self.ratio.ratio, self.ratio.low, self.ratio.high)
        if self.metric.is_lower_better:
            return tuple(None if value is None else value - 1 for value in values)
        estimate, low, high = (None if value is None else 1 / value - 1 for value in values)
        return estimate, high, low


@dataclass(frozen=True, kw_only=True)
class PointComparison:
    """One point on two sides."""

    label: str
    arm_a: str
    arm_b: str
    point_ids: tuple[str, str]
    changes: tuple[Change, ...]
    loss: LossChange | None  # None: the sides are different points, or left no losses
    differences: Mapping[str, tuple[Any, Any]]  # of the fingerprint
    not_alike: str | None = None  # why these frameworks' speeds must not be compared

    @property
    def size(self) -> float:
        """The largest clear change of a decisive metric (log scale), for sorting; unclear ones count a thousandth."""
        return max(
            (
                abs(np.log(c.ratio.ratio)) * (1 if c.call in ("worse", "better") else 1e-3)
                for c in self.changes
                if c.metric.is_decisive
            ),
            default=0.0,
        )


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A point that cannot be compared, and why."""

    label: str
    arm: str  # the side that lacks it
    reason: str
    is_crash: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that comparing the sets showed; the first set is the reference of all others."""

    arms: tuple[str, ...]
    joined_over: tuple[str, ...]  # fields that are meant to differ
    points: tuple[PointComparison, ...]
    missing: tuple[Missing, ...]
    differences: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def is_comparable(self) -> bool:
        """Whether machine and software agree, and so do the frameworks' losses where frameworks are compared."""
        return not self.differences and not any(point.not_alike for point in self.points)

    def count(self, call: str, *, decisive_only: bool = True) -> int:
        """Points with at least one metric of that call."""
        return sum(
            any(change.call == call and (change.metric.is_decisive or not decisive_only) for change in point.changes)
            for point in self.points
        )


def split_by(sets: Sequence[LaunchSet], axis: str) -> list[LaunchSet]:
    """The launches of all sets as one set a value of `axis`, in the order that Point declares its values."""
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


def compare(
    sets: Sequence[LaunchSet], *, ignore: Collection[str] = (), treatment: Collection[str] = (), margin: float = MARGIN,
    by_steps: bool = False,
) -> Comparison:  # fmt: skip
    """Join the sets by point (by all but the fields in `ignore`) and compare each set with the first.

    Sets of the same name are one side. `treatment` names the fields of the fingerprint that are meant to differ. `by_steps`: a
    pair's step time is compared step by step (`log_shift`), not by its medians.
    """
    joined_over = {*ignore, *(PRESET_SIZES if "model" in ignore else ())}
    meant = {*treatment, *(name for axis in joined_over for name in FOLLOWS_FROM.get(axis, ()))}
    arms = _collect(sets, joined_over)
    names = tuple(arms)
    labels = _label_points(sets, joined_over)
    missing: list[Missing] = []
    points: list[PointComparison] = []
    for name in names[1:]:
        for key in dict.fromkeys([*arms[names[0]], *arms[name]]):
            sides = {arm: arms[arm].get(key, []) for arm in (names[0], name)}
            good = {arm: [launch for launch in launches if launch.ended is None] for arm, launches in sides.items()}
            gaps = [_explain_gap(labels[key], arm, sides[arm], is_all=not good[arm]) for arm in sides]
            missing += [gap for gap in gaps if gap]
            if all(good.values()):
                points.append(
                    _compare_point(labels[key], good, joined_over=joined_over, meant=meant, by_steps=by_steps)
                )
    differences = {k: v for point in points for k, v in point.differences.items()}
    may_call = not differences
    called = _call_changes(points, margin=margin) if may_call else points
    return Comparison(
        arms=names,
        joined_over=tuple(axis for axis in AXES if axis in ignore),
        points=tuple(sorted(called, key=lambda point: -point.size)),
        missing=tuple(dict.fromkeys(missing)),
        differences=differences,
    )


def _collect(sets: Sequence[LaunchSet], joined_over: Collection[str]) -> dict[str, dict[str, list[Launch]]]:
    """Side -> point without the joined fields -> its launches."""
    arms: dict[str, dict[str, list[Launch]]] = {}
    for launches in sets:
        side = arms.setdefault(launches.name, {})
        records = sort_records(launches.records)
        rows = point_frame(records, metrics=[metric.name for metric in METRICS])
        ends = [
            None if row.status == "ok" else f"{row.status}{_why(row)}"
            for row in rows[["status", "phase", "message"]].itertuples()
        ]
        columns = {metric.name: _column(rows, metric.name) for metric in METRICS if metric.name in rows}
        for index, record in enumerate(records):
            values = {name: column[index] for name, column in columns.items()} | measure_parts(record)
            values = {name: value for name, value in values.items() if np.isfinite(value) and value > 0}
            launch = Launch(record=record, job=launches.job, ended=ends[index], values=values)
            side.setdefault(_key(record, joined_over), []).append(launch)
    return arms


def _column(rows: pd.DataFrame, name: str) -> list[float]:
    return rows[name].to_numpy(dtype="float64", na_value=np.nan).tolist()


def _why(row: Any) -> str:
    reason = describe_end(pd.Series({"phase": row.phase, "message": row.message}))
    return f" ({reason})" if reason else ""


def _key(record: Record, joined_over: Collection[str]) -> str:
    if not joined_over:
        return record.point_id
    return json.dumps(record.point.model_dump(exclude=set(joined_over)), sort_keys=True)


def _label_points(sets: Sequence[LaunchSet], joined_over: Collection[str]) -> dict[str, str]:
    """What tells the points apart, in words; where nothing does, the fields that people ask for first."""
    points = {_key(record, joined_over): record.point for launches in sets for record in launches.records}
    frame = pd.DataFrame([point.model_dump() for point in points.values()], columns=list(AXES))
    varying = [axis for axis in varying_axes(frame) if axis not in joined_over]
    shown = varying or [axis for axis in LEADING_AXES if axis not in joined_over]
    return {key: describe_point(point, shown) for key, point in points.items()}


def describe_point(point: Point, axes: Sequence[str]) -> str:
    """`pytorch b8x4 bf16 compression=fp16`: names that speak for themselves stand alone."""
    words = []
    for axis in axes:
        value = getattr(point, axis)
        if axis == "micro_batch_size":
            words.append(f"b{value}")
        elif axis == "gradient_accumulation_steps":
            joined = words and words[-1] == f"b{point.micro_batch_size}"
            words.append(f"{words.pop() if joined else ''}x{value}")
        else:
            words.append(str(value) if axis in ("framework", "model", "precision") else f"{axis}={value}")
    return " ".join(words)


def _explain_gap(label: str, arm: str, launches: Sequence[Launch], *, is_all: bool) -> Missing | None:
    ended = [launch.ended for launch in launches if launch.ended]
    if not launches:
        return Missing(label=label, arm=arm, reason="not there")
    if not ended:
        return None
    reason = ended[0] if is_all and len(ended) == 1 else f"{len(ended)} of {len(launches)} launches: {ended[0]}"
    return Missing(label=label, arm=arm, reason=reason, is_crash=True)


def _compare_point(
    label: str,
    good: Mapping[str, list[Launch]],
    *,
    joined_over: Collection[str],
    meant: Collection[str],
    by_steps: bool,
) -> PointComparison:
    (arm_a, a), (arm_b, b) = good.items()
    pairs = list(_pairs(a, b))
    ids = (a[0].record.point_id, b[0].record.point_id)
    changes = [change for metric in METRICS if (change := _compare_metric(metric, a, b, pairs, by_steps=by_steps))]
    records = [[launch.record for launch in side] for side in (a, b)]
    return PointComparison(
        label=label,
        arm_a=arm_a,
        arm_b=arm_b,
        point_ids=ids,
        changes=tuple(changes),
        loss=find_loss_change(*records) if ids[0] == ids[1] else None,
        differences=_compare_fingerprints(*records, meant=meant),
        not_alike=_explain_unlike(*records, pairs) if "framework" in joined_over else None,
    )


def _pairs(a: Sequence[Launch], b: Sequence[Launch]) -> Iterator[tuple[Launch, Launch]]:
    """Launches of the same job and repeat, in order."""
    others = {(launch.job, launch.record.repeat): launch for launch in b}
    for launch in sorted(a, key=lambda each: (each.job, each.record.repeat)):
        if (launch.job, launch.record.repeat) in others:
            yield launch, others[launch.job, launch.record.repeat]


def _compare_metric(
    metric: Metric, a: Sequence[Launch], b: Sequence[Launch], pairs: Sequence[tuple[Launch, Launch]], *, by_steps: bool
) -> Change | None:
    sides = [[launch.values[metric.name] for launch in side if metric.name in launch.values] for side in (a, b)]
    if not all(sides) or len(sides[0]) < len(a) or len(sides[1]) < len(b):
        return None  # a mean over the launches that have it would be one over the lucky ones
    if pairs:
        if by_steps and metric.name == STEP:
            metric = replace(metric, title="step time")
            differences = [log_shift(*(make_samples(launch.record).slowest for launch in pair)) for pair in pairs]
        else:
            differences = log_ratios(*([pair[side].values[metric.name] for pair in pairs] for side in (0, 1)))
        ratio = ratio_of_pairs(differences)
        sign = 1.0 if metric.is_lower_better else -1.0
        worse_by = tuple(sign * difference for difference in differences)
    else:
        ratio, worse_by = welch_ratio(*sides), ()
    return Change(metric=metric, a=estimate_rate(sides[0]), b=estimate_rate(sides[1]), ratio=ratio, worse_by=worse_by)


def _compare_fingerprints(
    a: Sequence[Record], b: Sequence[Record], *, meant: Collection[str]
) -> dict[str, tuple[Any, Any]]:
    """Differences between any launch of one side and any of the other."""
    sides = [
        {json.dumps(facts := describe_fingerprint(record), sort_keys=True, default=str): facts for record in side}
        for side in (a, b)
    ]
    found: dict[str, tuple[Any, Any]] = {}
    for before in sides[0].values():
        for now in sides[1].values():
            found |= find_differences(before, now, ignore=meant)
    return found


def _explain_unlike(a: Sequence[Record], b: Sequence[Record], pairs: Sequence[tuple[Launch, Launch]]) -> str | None:
    """Why two frameworks' launches of one point are no comparison of the same work, or None."""
    for record in (*a, *b):
        if record.parity is not None and not record.parity.is_proven:
            worst = f": {record.parity.worst}" if record.parity.worst else ""
            return f"the parity check of {record.point.framework} failed{worst}"
    first = [(one.record, other.record) for one, other in pairs] or [(a[0], b[0])]
    largest = max(compare_losses(*pair) for pair in first)
    allowed = LOSS_TOLERANCES[a[0].point.precision]
    return None if largest <= allowed else f"losses differ by {largest:.1e} (allowed {allowed:.0e})"


def _call_changes(points: Sequence[PointComparison], *, margin: float) -> list[PointComparison]:
    """Give every change its word, p-values corrected within the decisive figures and within the shown ones."""
    adjusted: dict[tuple[int, int], float] = {}
    for is_decisive in (True, False):
        family = [
            (i, j)
            for i, point in enumerate(points)
            for j, change in enumerate(point.changes)
            if change.metric.is_decisive == is_decisive and change.ratio.p_value is not None
        ]
        p_values = adjust_holm([points[i].changes[j].ratio.p_value for i, j in family])
        adjusted |= dict(zip(family, p_values, strict=True))

    def call(i: int, j: int) -> Change:
        change = replace(points[i].changes[j], adjusted_p_value=adjusted.get((i, j)))
        return replace(change, call=None if points[i].not_alike else call_change(change, margin=margin))

    return [
        replace(point, changes=tuple(call(i, j) for j in range(len(point.changes)))) for i, point in enumerate(points)
    ]


def call_change(change: Change, *, margin: float) -> str:
    """`worse` or `better`: clear and at least the margin; `same`: the interval lies within it; else `unclear`."""
    estimate, low, high = change.worse
    if low is None or min(change.ratio.n_a, change.ratio.n_b) < MIN_LAUNCHES:
        return "unclear"
    if change.adjusted_p_value <= SIGNIFICANT and abs(estimate) >= margin:
        return "worse" if estimate > 0 else "better"
    return "same" if -margin < low and high < margin else "unclear"
