"""What a comparison found: changes of metrics, point by point, and what could not be compared. Pure: values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hvbench.analysis.frame.metrics import Metric
from hvbench.analysis.stats.contrasts import Contrast
from hvbench.analysis.stats.estimates import Estimate
from hvbench.analysis.stats.ratios import Ratio
from hvbench.analysis.topics.parity.losses import LossChange
from hvbench.comparison.operators import OperatorGrowth
from hvbench.records.record import Record

Launched = tuple[str, int]  # job and repeat of a launch


@dataclass(frozen=True, kw_only=True)
class LaunchSet:
    """One side of a comparison. Sets with the same `job` were interleaved: their repeats are pairs."""

    name: str
    records: Sequence[Record]
    job: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric of one point on two sides, a and b."""

    metric: Metric
    a: Estimate
    b: Estimate
    ratio: Ratio  # b over a
    worse_by: tuple[float, ...]  # per pair: log ratio, positive where b is worse; empty where nothing was paired
    launches_a: tuple[Launched, ...] = ()  # that it rests on; of pairs, those of either side
    launches_b: tuple[Launched, ...] = ()
    values_a: tuple[float, ...] = ()
    values_b: tuple[float, ...] = ()
    contrast: Contrast | None = None  # b over a, by the one rule of "faster"; None: not judged yet
    call: str | None = None  # worse, better, same, unclear; None: no words, only figures

    @property
    def worse(self) -> tuple[float, float | None, float | None]:
        """By how much b is worse: estimate, low and high end, as fractions: 0.05 is 5 % worse, negative is better.

        For a metric that is better when it is higher, that is the ratio of a to b.
        """
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
    operators: OperatorGrowth = OperatorGrowth()  # that grew most, where both sides were profiled
    mismatch: str | None = None  # why the sides did not do the same work, so that their speeds must not be compared
    is_different: bool = False  # with a mismatch: their work was seen to differ; else nothing shows that it is the same

    @property
    def size(self) -> float:
        """The largest clear change of a decisive metric (log scale), for sorting; unclear ones count a thousandth."""
        decisive = (change for change in self.changes if change.metric.is_decisive)
        weights = {"worse": 1.0, "better": 1.0}
        return max((abs(math.log(c.ratio.ratio)) * weights.get(c.call or "", 1e-3) for c in decisive), default=0.0)


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
    means: Mapping[tuple[str, str], Contrast] = field(default_factory=dict)  # (side, metric): over all points
    notes: tuple[str, ...] = ()  # what differs and is no obstacle, in sentences

    @property
    def is_comparable(self) -> bool:
        """Whether machine and software agree, and so do the frameworks' losses where frameworks are compared."""
        return not self.differences and not any(point.mismatch for point in self.points)

    def count(self, call: str, *, decisive_only: bool = True) -> int:
        """Points with at least one metric of that call."""
        return sum(
            any(change.call == call and (change.metric.is_decisive or not decisive_only) for change in point.changes)
            for point in self.points
        )
