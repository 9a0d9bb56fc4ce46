"""Which operators grew: what the frameworks' own profilers recorded of two sides' launches, compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hvbench.records.record import Record

LEAST_SHARE = 0.05  # of all that grew: what is less explains nothing
LEAST_OF_STEP = 0.005  # of a step's time: what is less is noise
MOST = 3
LEAST_COMMON = 4  # operators that are called equally often on both sides: fewer do not tell what the machine did to all
LEAST_FACTOR = 1.25  # of the time of all operators: what is less is not mentioned


@dataclass(frozen=True, kw_only=True)
class UsualTime:
    """Self time and calls of one operator in a step, medians over the profiled launches and ranks of a side."""

    seconds: float = 0.0
    calls: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OperatorChange:
    """One operator in a step of either side."""

    name: str
    a: UsualTime
    b: UsualTime
    factor: float = 1.0  # by which all operators took longer on side b

    @property
    def growth_seconds(self) -> float:
        """By how much side b takes longer than side a would in b's profile."""
        return self.b.seconds - self.factor * self.a.seconds

    def describe(self) -> str:
        """`aten::copy_ +3.1 ms a step (0.2 → 3.3)`."""
        a, b, growth = (
            f"{value * 1e3:.2g}" for value in (self.a.seconds, self.b.seconds, self.b.seconds - self.a.seconds)
        )
        return f"{self.name} +{growth} ms a step ({a} → {b})"


@dataclass(frozen=True, kw_only=True)
class OperatorGrowth:
    """What the profilers say of a step that takes longer."""

    changes: tuple[OperatorChange, ...] = ()  # of the operators that grew most, the largest growth first
    factor: float = 1.0  # by which all operators took longer on side b

    def describe(self) -> str:
        """`what grew most: aten::copy_ +3.1 ms a step (0.2 → 3.3)`; empty where nothing is to be said."""
        named = ", ".join(change.describe() for change in self.changes)
        if self.factor < LEAST_FACTOR:
            return f"what grew most: {named}" if named else ""
        common = f"all operators took about {self.factor:.2g} times as long while they were profiled"
        return f"what grew most: {named} ({common}, which is allowed for)" if named else common


def find_grown_operators(a: Sequence[Record], b: Sequence[Record]) -> OperatorGrowth:
    """The operators that grew most from side a to side b; none unless both sides were profiled.

    Few steps of either side are profiled, and what else the machine does then makes all operators longer, the longest ones by most.
    So an operator's growth is what it takes beyond that (`common_factor`).
    """
    before, after = (usual_operators(records) for records in (a, b))
    if not (before and after):
        return OperatorGrowth()
    absent, factor = UsualTime(), common_factor(before, after)
    changes = [
        OperatorChange(name=name, a=before.get(name, absent), b=after.get(name, absent), factor=factor)
        for name in dict.fromkeys([*before, *after])
    ]
    grown = [change for change in changes if change.growth_seconds > 0 and change.b.seconds > change.a.seconds]
    least = max(LEAST_SHARE * sum(change.growth_seconds for change in grown), LEAST_OF_STEP * step_seconds(before))
    grown = [change for change in grown if change.growth_seconds >= least]
    return OperatorGrowth(changes=tuple(sorted(grown, key=lambda change: -change.growth_seconds)[:MOST]), factor=factor)


def common_factor(before: Mapping[str, UsualTime], after: Mapping[str, UsualTime]) -> float:
    """How many times as long all operators took after: the median over those that are called equally often, of equal weight each.

    A change of the training makes some operators longer, not the typical one. 1 where there are too few to tell.
    """
    least = LEAST_OF_STEP * step_seconds(before)
    ratios = [
        after[name].seconds / time.seconds
        for name, time in before.items()
        if time.seconds > least and name in after and 0 < time.calls == after[name].calls
    ]
    return median(ratios) if len(ratios) >= LEAST_COMMON else 1.0


def step_seconds(operators: Mapping[str, UsualTime]) -> float:
    """Of all operators together."""
    return sum(time.seconds for time in operators.values())


def usual_operators(records: Sequence[Record]) -> Mapping[str, UsualTime]:
    """Operator -> its time in a step, over the profiles of all launches and ranks; time on a GPU has names of its own."""
    profiles = [rank.profile for record in records for rank in record.ranks if rank.profile and rank.profile.operators]
    found: dict[str, list[UsualTime]] = {}
    for profile in profiles:
        for name, spent in profile.operators.items():
            on_device = {f"{name} on the device": spent.device_seconds} if spent.device_seconds else {}
            for own, seconds in {name: spent.seconds, **on_device}.items():
                found.setdefault(own, []).append(UsualTime(seconds=seconds, calls=spent.count))
    return {name: _median([*times, *[UsualTime()] * (len(profiles) - len(times))]) for name, times in found.items()}


def _median(times: Sequence[UsualTime]) -> UsualTime:
    return UsualTime(seconds=median(time.seconds for time in times), calls=median(time.calls for time in times))
