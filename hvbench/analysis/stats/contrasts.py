"""ln(A/B) round by round, of everything that one question compares -> faster, slower, equal or open: the one rule. Pure.

A contrast is the mean over rounds of ln(A/B): launches of one round ran side by side, so what moves the machine moves both. The
contrasts that answer one question are a family; how wrong and how powerful the rule is was simulated (`benchmarks/contrast_power.py`,
docs/reading-a-report.md). What each call follows from is in `hvbench.analysis.stats.decision`, an array of families at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
from scipy import special

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.decision import (
    LEAST_SPREAD,
    MEAN_SHARE,
    OWN_SHARE,
    Decided,
    Evidence,
    decide,
    gather_best,
    gather_pairs,
    gather_samples,
)

Round = TypeVar("Round")  # what can be ordered: a repeat, a seed, or a job with its repeat

EQUAL_WITHIN = 0.03  # of a ratio
WORTH_TELLING = 0.05  # the difference whose price is named where nothing can be said
POWER = 0.8  # share of the cases in which such a difference is then found
USUAL_SPREAD = 0.035  # of a round's ln(A/B) of workers that take turns, where no second round says what it is here
FEWEST_ROUNDS, MOST_ROUNDS = 3, 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which differences count, in the unit of what is judged."""

    least: float  # an estimate that is nearer to 0 is called no difference, however well it is known
    equal_within: float  # two that differ by less than this, wherever in the interval the truth is, are equal


OF_RATIOS = Limits(least=math.log1p(0.01), equal_within=math.log1p(EQUAL_WITHIN))  # of ln(A/B)


class Call(StrEnum):
    """What can be said of A against B."""

    FASTER = "faster"  # A is above B, as a rate is that is faster; of a loss or a duration it says the larger one
    SLOWER = "slower"
    EQUAL = "equal"  # within `Limits.equal_within` of each other, whatever their interval leaves open
    OPEN = "open"  # it cannot be said


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A - B over its rounds: mean, corrected interval and two-sided p-value, and what it is called."""

    mean: float
    low: float | None  # None where one round says nothing about chance
    high: float | None
    rounds: int
    p_value: float | None
    call: Call


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A/B over its rounds: ratio of geometric means, corrected interval and two-sided p-value, and what it is called."""

    ratio: float
    low: float | None
    high: float | None
    rounds: int
    p_value: float | None
    call: Call

    def turned(self) -> Contrast:
        """B/A."""
        low, high = (None if end is None else _invert(end) for end in (self.high, self.low))
        call = {Call.FASTER: Call.SLOWER, Call.SLOWER: Call.FASTER}.get(self.call, self.call)
        return replace(self, ratio=_invert(self.ratio), low=low, high=high, call=call)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How rounds scatter, as standard deviations of a round's difference; None where nothing has two rounds."""

    of_contrast: float | None  # pooled over the contrasts
    of_mean: float | None
    contrasts: int  # that are corrected together
    dimensions: int  # how many of them are independent


@dataclass(frozen=True, kw_only=True)
class Differences:
    """A family in the order given, and its mean over all of them where that is a claim."""

    each: tuple[Difference, ...]
    mean: Difference | None
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class Family:
    """The contrasts of one question, in the order given, and their mean over all of them where that is a claim."""

    contrasts: tuple[Contrast, ...]
    mean: Contrast | None
    spread: Spread


def judge_family(
    logs: Sequence[Sequence[float]], *, has_mean: bool = True, is_best: bool = False, limits: Limits = OF_RATIOS
) -> Family:
    """Judge ln(A/B), a row a contrast and a column a round; the arguments are those of `judge_differences`."""
    return as_ratios(judge_differences(logs, has_mean=has_mean, is_best=is_best, limits=limits))


def judge_differences(
    values: Sequence[Sequence[float]],
    *,
    has_mean: bool = True,
    is_best: bool = False,
    limits: Limits = OF_RATIOS,
) -> Differences:
    """Judge differences A - B in any unit, a row a contrast and a column a round; NaN where a contrast lacks the round.

    Args:
        values: one list a contrast; shorter lists lack the last rounds.
        has_mean: whether the mean over the contrasts is a claim of its own, such as a framework's over all configurations.
        is_best: whether one side is the same point all along, the best of all by these figures, and the other side each of the rest. All
            pairs of points are then corrected for, and no mean is judged.
        limits: which differences count, in the unit of the values.
    """
    gather = gather_best if is_best else gather_pairs
    return _judge(gather(align(values)), has_mean=has_mean, limits=limits)


def judge_samples(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    has_mean: bool = True,
    limits: Limits = OF_RATIOS,
) -> Differences:
    """Judge mean(A) - mean(B) of sides that were not measured side by side, a row a contrast and a column a launch (Welch 1947).

    A launch of one side has nothing to do with the launch of the other that stands in its column; those of one column and side
    belong to one round, of which the mean over the contrasts is taken.
    """
    return _judge(gather_samples(align(a), align(b)), has_mean=has_mean, limits=limits)


def as_ratios(found: Differences) -> Family:
    """The same of differences of logarithms, as ratios."""
    return Family(
        contrasts=tuple(map(_as_ratio, found.each)),
        mean=None if found.mean is None else _as_ratio(found.mean),
        spread=found.spread,
    )


def rows_by_round(values: Sequence[Mapping[Round, float]]) -> list[list[float]]:
    """Round (or seed) -> value, one mapping a contrast: as rows with the same rounds in order as columns, NaN where there is none."""
    rounds = sorted({when for each in values for when in each})
    return [[each.get(when, math.nan) for when in rounds] for each in values]


def align(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """(rows, longest): NaN after the end of shorter ones."""
    aligned = np.full((len(rows), max((len(row) for row in rows), default=0)), math.nan)
    for row, values in zip(aligned, rows, strict=True):
        row[: len(values)] = values
    return aligned


def rounds_to_tell(family: Family, *, difference: float = WORTH_TELLING, of_mean: bool = False) -> int:
    """Rounds in all that find such a difference of one contrast, or `of_mean` of all, with `POWER`, if rounds go on scattering so."""
    seen = family.spread.of_mean if of_mean else family.spread.of_contrast
    spread = USUAL_SPREAD if seen is None else max(seen, LEAST_SPREAD)
    for rounds in range(FEWEST_ROUNDS, MOST_ROUNDS):
        reached = math.log1p(difference) * math.sqrt(rounds) / spread
        needed = [_needed(freedom, level) for freedom, level in _demands(family.spread, rounds, of_mean=of_mean)]
        if reached >= max(needed):
            return rounds
    return MOST_ROUNDS


def _demands(spread: Spread, rounds: int, *, of_mean: bool) -> list[tuple[float, float]]:
    """(degrees of freedom, two-sided level) of what `hvbench.analysis.stats.decision` asks of a contrast, or of their mean."""
    level, own = 1 - CONFIDENCE, rounds - 1.0
    if of_mean and spread.contrasts > 1:
        level *= MEAN_SHARE
    else:
        level *= (1.0 if spread.of_mean is None else 1 - MEAN_SHARE) / max(spread.contrasts, 1)
    return [(own * max(spread.dimensions, 1), level), (own, min(1.0, level * OWN_SHARE))]


def _needed(freedom: float, level: float) -> float:
    """Standard errors that a true difference has to be large, to be found with `POWER` at a two-sided level of Student's t."""
    return float(special.stdtrit(freedom, 1 - level / 2) + special.stdtrit(freedom, POWER))


def _judge(evidence: Evidence, *, has_mean: bool, limits: Limits) -> Differences:
    count = evidence.each.centre.shape[-1]
    if not count:
        return Differences(each=(), mean=None, spread=Spread(of_contrast=None, of_mean=None, contrasts=0, dimensions=0))
    decided = decide(evidence, has_mean=has_mean)
    found = [_read(decided, index, limits) for index in range(count + decided.has_mean)]
    pooled = float(decided.spread)
    whole = found[count] if decided.has_mean and found[count].p_value is not None else None
    spread = Spread(
        of_contrast=None if math.isnan(pooled) else pooled,
        of_mean=None if whole is None else math.sqrt(float(evidence.mean.variance[0])),
        contrasts=count * (count + 1) // 2 if evidence.points else count,
        dimensions=count,
    )
    return Differences(each=tuple(found[:count]), mean=whole, spread=spread)


def _read(decided: Decided, index: int, limits: Limits) -> Difference:
    """One contrast, or the mean after the last of them; its call follows from mean and interval, and nothing else."""
    mean, low, high, p_value = (
        float(each[index]) for each in (decided.mean, decided.low, decided.high, decided.p_value)
    )
    is_known, call = not math.isnan(p_value), Call.OPEN
    if is_known and low > 0 and mean >= limits.least:
        call = Call.FASTER
    elif is_known and high < 0 and mean <= -limits.least:
        call = Call.SLOWER
    elif is_known and max(-low, high) <= limits.equal_within:
        call = Call.EQUAL
    return Difference(
        mean=mean,
        low=low if is_known else None,
        high=high if is_known else None,
        rounds=int(decided.rounds[index]),
        p_value=p_value if is_known else None,
        call=call,
    )


def _as_ratio(found: Difference) -> Contrast:
    low, high = (None if end is None else _exp(end) for end in (found.low, found.high))
    return Contrast(
        ratio=_exp(found.mean), low=low, high=high, rounds=found.rounds, p_value=found.p_value, call=found.call
    )


def _exp(value: float) -> float:
    """e^value; infinite beyond all numbers, as the end of an interval may be."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def _invert(value: float) -> float:
    return 1.0 / value if value else math.inf
