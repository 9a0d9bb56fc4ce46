"""Which operators grew: what the frameworks' own profilers recorded of two sides' launches, compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hvbench.records.record import Record

LEAST_SHARE = 0.05  # of all that grew: what is less explains nothing
LEAST_OF_STEP = 0.005  # of a step's time: what is less is noise
MOST = 3


@dataclass(frozen=True, kw_only=True)
class OperatorChange:
    """Self time of one operator in a step, median over the profiled launches and ranks of a side."""

    name: str
    seconds_a: float
    seconds_b: float

    @property
    def growth_seconds(self) -> float:
        """By how much side b takes longer."""
        return self.seconds_b - self.seconds_a

    def describe(self) -> str:
        """`aten::copy_ +3.1 ms a step (0.2 → 3.3)`."""
        a, b, growth = (f"{value * 1e3:.2g}" for value in (self.seconds_a, self.seconds_b, self.growth_seconds))
        return f"{self.name} +{growth} ms a step ({a} → {b})"


def find_grown_operators(a: Sequence[Record], b: Sequence[Record]) -> tuple[OperatorChange, ...]:
    """The operators that grew most from side a to side b, the largest growth first; none unless both sides were profiled."""
    sides = [usual_operators(records) for records in (a, b)]
    if not all(sides):
        return ()
    changes = [
        OperatorChange(name=name, seconds_a=sides[0].get(name, 0.0), seconds_b=sides[1].get(name, 0.0))
        for name in dict.fromkeys([*sides[0], *sides[1]])
    ]
    grown = [change for change in changes if change.growth_seconds > 0]
    least = max(LEAST_SHARE * sum(change.growth_seconds for change in grown), LEAST_OF_STEP * sum(sides[0].values()))
    grown = [change for change in grown if change.growth_seconds >= least]
    return tuple(sorted(grown, key=lambda change: -change.growth_seconds)[:MOST])


def usual_operators(records: Sequence[Record]) -> Mapping[str, float]:
    """Operator -> seconds a step, median over the profiles of all launches and ranks; time on a GPU has names of its own."""
    profiles = [rank.profile for record in records for rank in record.ranks if rank.profile and rank.profile.operators]
    found: dict[str, list[float]] = {}
    for profile in profiles:
        for name, spent in profile.operators.items():
            on_device = {f"{name} on the device": spent.device_seconds} if spent.device_seconds else {}
            for own, seconds in {name: spent.seconds, **on_device}.items():
                found.setdefault(own, []).append(seconds)
    return {name: median([*seconds, *[0.0] * (len(profiles) - len(seconds))]) for name, seconds in found.items()}
