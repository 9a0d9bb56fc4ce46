"""Points of a run -> contrasts, paired by round: which is faster, as every table, sentence and command says it.

Launches of one repeat are one round. A round counts for two points if both of its launches ended in `ok`. Rates and step times are
compared step by step (Hodges and Lehmann), other metrics by the launch's figure; what the seed decides counts once a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hvbench.analysis.contrasts.equal_seconds import LOSS_AFTER_EQUAL_SECONDS, compare_after_equal_seconds
from hvbench.analysis.contrasts.launches import BY_STEPS, StepTimes, log_ratio_of_steps, time_steps
from hvbench.analysis.frame.metrics import RATE, STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.stats.contrasts import Call, Contrast, Family, judge_family, rows_by_round
from hvbench.analysis.stats.seeds import average_by, is_by_seed

Row = Mapping[str, Any]  # of `summarize_launches`


@dataclass(frozen=True, kw_only=True)
class PointContrast:
    """Two points of a run: `contrast` is of `one` / `other`. Of a rate, a ratio above 1 is faster."""

    one: Row
    other: Row
    contrast: Contrast

    @property
    def is_faster(self) -> bool:
        """Whether the ratio is above 1, as far as it can be said: of a rate, that `one` is faster."""
        return self.contrast.call == Call.FASTER

    @property
    def is_slower(self) -> bool:
        """Whether the ratio is below 1, as far as it can be said."""
        return self.contrast.call == Call.SLOWER

    def turned(self) -> PointContrast:
        """`other` / `one`."""
        return PointContrast(one=self.other, other=self.one, contrast=self.contrast.turned())


@dataclass(frozen=True, kw_only=True)
class PointFamily:
    """The contrasts that answer one question, in the order asked; `mean` is over all of them, where there are several and it is asked for."""

    metric: str
    contrasts: tuple[PointContrast, ...]
    mean: Contrast | None
    family: Family

    def turned(self) -> PointFamily:
        """The same contrasts, `other` / `one` each."""
        family = replace(
            self.family,
            contrasts=tuple(each.turned() for each in self.family.contrasts),
            mean=self.family.mean.turned() if self.family.mean else None,
        )
        contrasts = tuple(each.turned() for each in self.contrasts)
        return replace(self, contrasts=contrasts, mean=family.mean, family=family)


def contrast_points(run: Run, pairs: Sequence[tuple[Row, Row]], *, metric: str | None = None) -> PointFamily:
    """`one` / `other` of every pair of rows, by the run's speed or by `metric`: one family, such as two frameworks in all configurations, corrected together."""
    return _contrast(run, pairs, metric or run.speed.metric)


def contrast_best(run: Run, rows: Sequence[Row]) -> PointFamily:
    """The fastest of `rows`, by its estimate, against each of the others, in their order."""
    best = max(rows, key=run.speed.rank)
    return _contrast(run, [(best, row) for row in rows if row is not best], run.speed.metric, is_best=True)


def _contrast(run: Run, pairs: Sequence[tuple[Row, Row]], metric: str, *, is_best: bool = False) -> PointFamily:
    family = judge_family(rows_by_round(compare_by_round(run, pairs, metric=metric)), is_best=is_best)
    found = [
        PointContrast(one=one, other=other, contrast=contrast)
        for (one, other), contrast in zip(pairs, family.contrasts, strict=True)
    ]
    return PointFamily(metric=metric, contrasts=tuple(found), mean=family.mean, family=family)


def compare_by_round(run: Run, pairs: Sequence[tuple[Row, Row]], *, metric: str = RATE) -> list[dict[int, float]]:
    """Round (or seed) -> ln(`one` / `other`) of every pair of rows, of which a row's `point_id` is enough."""
    return [_logs_of(run, one, other, metric) for one, other in pairs]


def _logs_of(run: Run, one: Row, other: Row, metric: str) -> dict[int, float]:
    """Round (or seed) -> ln(one / other)."""
    known: dict[tuple[str, str, str], dict[int, float]] = run.derive(_make_cache)
    key = (str(one["point_id"]), str(other["point_id"]), metric)
    if key not in known:
        known[key] = _compare(run, *key)
    return known[key]


def _make_cache(run: Run) -> dict[tuple[str, str, str], dict[int, float]]:
    del run  # which keeps it
    return {}


def _compare(run: Run, one: str, other: str, metric: str) -> dict[int, float]:
    if metric in BY_STEPS:
        seconds = run.derive(_seconds_of_tokens if metric == RATE else _seconds_of_steps)
        a, b = seconds.get(one, {}), seconds.get(other, {})
        return {when: log_ratio_of_steps(metric, a[when], b[when]) for when in a if when in b}
    if metric == LOSS_AFTER_EQUAL_SECONDS:
        return compare_after_equal_seconds(run, one, other)
    a, b = (_values(run, point_id, metric) for point_id in (one, other))
    return {when: math.log(a[when]) - math.log(b[when]) for when in a if when in b}


def _values(run: Run, point_id: str, metric: str) -> dict[int, float]:
    """Round, or seed where that decides -> the figure, where it is above 0."""
    points = run.points
    rows = points[(points["point_id"] == point_id) & (points["status"] == "ok")]
    values = rows[metric].to_numpy(dtype="float64", na_value=np.nan)
    is_known = np.isfinite(values) & (values > 0)
    keys = rows["repeat"].to_numpy()
    if is_by_seed(metric, seeds=int(rows["trained_seed"].nunique())):
        keys = rows["trained_seed"].to_numpy()
    keys, values = keys[is_known], values[is_known]
    return dict(zip(np.unique(keys).tolist(), average_by(keys, values).tolist(), strict=True)) if len(keys) else {}


def _seconds_of_steps(run: Run) -> dict[str, dict[int, StepTimes]]:
    """Point -> round -> `time_steps` of its launch."""
    return _time_launches(run, STEP)


def _seconds_of_tokens(run: Run) -> dict[str, dict[int, StepTimes]]:
    return _time_launches(run, RATE)


def _time_launches(run: Run, metric: str) -> dict[str, dict[int, StepTimes]]:
    found: dict[str, dict[int, StepTimes]] = {}
    points = run.points
    for launch in points.loc[points["status"] == "ok", "launch"]:
        record = run.records[launch]
        found.setdefault(record.point_id, {})[record.repeat] = time_steps(make_samples(record), metric)
    return found
