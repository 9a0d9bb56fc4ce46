"""What a search is asked: the default, what of it may be varied, what for, and in how much time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.search.goals import Goal
from hvbench.sweep.search.pruning import Halving, make_halving
from hvbench.sweep.search.space import Choices, Space, Values

FRAMEWORK = "framework"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One search."""

    defaults: Sequence[
        Point
    ]  # one a framework, on the ranks that were launched; what is found is compared with the first
    given: Mapping[str, Any]  # the fields of them that were set by hand
    space: Space
    goals: Sequence[Goal]
    settings: MeasureSettings
    budget_seconds: float  # for all launches of a session
    pairs: int  # of launches that confirm what was found, at least
    sampler: str = "auto"
    ends_early: bool = True  # halving, and no longer than the best
    seed: int = 0

    @property
    def goal(self) -> Goal:
        """The first goal: by it the best is chosen and confirmed."""
        return self.goals[0]

    @property
    def is_of_machine(self) -> bool:
        """Whether launches with the same losses differ in what they are worth: frameworks are then compared, too."""
        return any(goal.is_of_machine for goal in self.goals)

    @property
    def tried_space(self) -> Space:
        """The space of the proposals: where frameworks differ in what they are worth, one of them is part of it."""
        names = tuple(point.framework for point in self.defaults)
        if len(names) < 2 or not self.is_of_machine:
            return self.space
        return replace(self.space, dimensions={FRAMEWORK: Choices(values=names), **self.space.dimensions})

    def make_point(self, values: Values, *, framework: str) -> Point | None:
        """The point of a proposal, in the framework that it names or else in this one; None where there is none."""
        chosen = values.get(FRAMEWORK, framework)
        base = next(point for point in self.defaults if point.framework == chosen)
        rest = {name: value for name, value in values.items() if name != FRAMEWORK}
        return self.space.make_point(base, {**self.given, "seed": base.seed}, rest)

    def values_of(self, point: Point) -> Values | None:
        """The values of the proposal that a point would be; None where the space does not hold it."""
        values = self.space.values_of(point)
        if values is None or FRAMEWORK not in self.tried_space.dimensions:
            return values
        return {FRAMEWORK: point.framework, **values}

    def make_halving(self, *, whole: float, first: float) -> Halving | None:
        """The rungs of a way of such a length; None where nothing is halved, as on the way to two goals at once."""
        if not self.ends_early or len(self.goals) > 1:
            return None
        return make_halving(self.goal.progress, whole=whole, first=first)
