"""What a search has found, and the pairs of launches that say what it gains. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.analysis.stats.contrasts import Contrast
from hvbench.analysis.stats.losses import LossContrast
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.sweep.search.goals import Goal


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What both launches of one seed came to; None: it did not get there."""

    default: float | None
    found: float | None


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The pairs, and what follows from them by the one rule; None where a launch of either did not get there."""

    goal: Goal
    pairs: Sequence[Pair]
    contrast: Contrast | LossContrast | None

    def describe_missed(self) -> str:
        """How many launches got there, where not all did: a ratio of the others would be one of the lucky ones."""
        n = len(self.pairs)
        found, default = (
            sum(value is not None for value in side)
            for side in ([pair.found for pair in self.pairs], [pair.default for pair in self.pairs])
        )
        return f"no ratio of {self.goal.in_words}: {found} of {n} launches with what was found got there, {default} of {n} by default"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has found; `missing` says why there is nothing."""

    default: Point
    best: Record | None
    front: Sequence[Record]
    trials: int
    ended_early: int
    confirmed: Confirmed | None = None  # None where the default is the best
    missing: str | None = None

    def describe(self) -> dict[str, Any]:
        """What run.json keeps: the points, the number of trials, and what each pair came to."""
        return {
            "default": self.default.point_id,
            "best": None if self.best is None else self.best.point_id,
            "front": [record.point_id for record in self.front],
            "trials": self.trials,
            "ended_early": self.ended_early,
            "pairs": [vars(pair) for pair in self.confirmed.pairs] if self.confirmed else [],
        }
