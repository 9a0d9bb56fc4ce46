"""ln(A/B) round by round, of everything that one question compares -> faster, slower, equal or open: the one rule. Pure.

A contrast is the mean over rounds of ln(A/B): launches of one round ran side by side, so what moves the machine moves both. The
contrasts that answer one question are a family: "faster" is wrong anywhere in it in at most 5 % of equal families. A contrast's error
comes from its own spread moderated by those of the others (`analysis.stats.moderated`), and its own spread alone has to agree
at `OWN_SHARE` times the level, so that a noisy contrast is not judged by calm ones. The mean over the contrasts is taken
round by round and has its own share of the level; what it does not use up goes to the contrasts, which are corrected by Holm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import special

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.moderated import moderate
from hvbench.analysis.stats.ratios import adjust_holm_rows

WORTH_TELLING = 0.05  # the difference whose price is named where nothing can be said
POWER = 0.8  # share of the cases in which such a difference is then found
OWN_SHARE = 2.0  # levels at which a contrast's own spread, unmoderated, has to agree
MEAN_SHARE = 0.5  # of the level, for the mean over the contrasts; all of it where there is but one
LEAST_SPREAD = 1e-6  # of ln(A/B): rounds that are all the same are known this well, no better
USUAL_SPREAD = 0.035  # of a round's ln(A/B) of workers that take turns, where no second round says what it is here
MOST_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which differences count, in the unit of what is judged."""

    least: float  # an estimate that is nearer to 0 is called no difference, however well it is known
    equal_within: float  # two that differ by less than this, wherever in the interval the truth is, are equal


EQUAL_WITHIN = 0.03  # of a ratio
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
        low, high = (None if end is None else 1.0 / end for end in (self.high, self.low))
        call = {Call.FASTER: Call.SLOWER, Call.SLOWER: Call.FASTER}.get(self.call, self.call)
        return replace(self, ratio=1.0 / self.ratio, low=low, high=high, call=call)


@dataclass(frozen=True, kw_only=True)
class Differences:
    """A family in the order given, its mean over all of them where that is a claim, and the spread of a round."""

    each: tuple[Difference, ...]
    mean: Difference | None
    spread: float | None  # standard deviation over the rounds, pooled; None where no contrast has two rounds


@dataclass(frozen=True, kw_only=True)
class Family:
    """The contrasts of one question, in the order given, and their mean over all of them where that is a claim."""

    contrasts: tuple[Contrast, ...]
    mean: Contrast | None
    spread: float | None  # standard deviation of a round's ln(A/B), pooled over the contrasts


def judge_family(
    logs: Sequence[Sequence[float]], *, has_mean: bool = True, dimensions: int | None = None, limits: Limits = OF_RATIOS
) -> Family:
    """Judge ln(A/B), a row a contrast and a column a round; the arguments are those of `judge_differences`."""
    found = judge_differences(logs, has_mean=has_mean, dimensions=dimensions, limits=limits)
    return Family(
        contrasts=tuple(map(_as_ratio, found.each)),
        mean=None if found.mean is None else _as_ratio(found.mean),
        spread=found.spread,
    )


def judge_differences(
    values: Sequence[Sequence[float]],
    *,
    has_mean: bool = True,
    dimensions: int | None = None,
    limits: Limits = OF_RATIOS,
) -> Differences:
    """Judge differences A - B in any unit, a row a contrast and a column a round; NaN where a contrast lacks the round.

    Args:
        values: one list a contrast; shorter lists lack the last rounds.
        has_mean: whether the mean over the contrasts is a claim of its own, such as a framework's over all configurations.
        dimensions: how many of the contrasts are independent; fewer than all, where points are compared in all pairs.
        limits: which differences count, in the unit of the values.
    """
    rows = _align(values)
    counts = np.isfinite(rows).sum(axis=1)
    means = [float(row[np.isfinite(row)].mean()) if np.isfinite(row).any() else math.nan for row in rows]
    known = np.flatnonzero(counts > 1)
    found = [_unknown(mean, int(count)) for mean, count in zip(means, counts, strict=True)]
    if not len(known):
        return Differences(each=tuple(found), mean=None, spread=None)
    level, centres = 1 - CONFIDENCE, np.array(means)[known]
    whole = _judge_mean(rows, limits) if has_mean and len(known) > 1 else None
    share = 1.0 if whole is None or whole.p_value <= level else 1 - MEAN_SHARE
    errors = _errors(rows[known], counts[known], dimensions=dimensions or len(known))
    p_values = np.max([2 * special.stdtr(f, -np.abs(centres) / error) / own for error, f, own in errors], axis=0)
    adjusted = adjust_holm_rows(np.minimum(p_values, 1.0), np.ones(len(known), dtype=bool)) / share
    for place, index in enumerate(known):
        at = level * share / len(known)
        if (adjusted[place] <= level) != (p_values[place] <= at):
            at = level * p_values[place] / adjusted[place]
        width = max(error[place] * special.stdtrit(f[place], 1 - min(0.5, at * own / 2)) for error, f, own in errors)
        found[index] = _finish(
            centres[place],
            float(width),
            rounds=int(counts[index]),
            p_value=min(1.0, float(adjusted[place])),
            limits=limits,
        )
    spread = math.sqrt(np.mean([np.nanvar(rows[index], ddof=1) for index in known]))
    return Differences(each=tuple(found), mean=whole, spread=spread)


def rounds_to_tell(family: Family, *, difference: float = WORTH_TELLING) -> int:
    """How many rounds in all find such a difference of one contrast with `POWER`, if rounds go on scattering as they did."""
    contrasts = max(1, len(family.contrasts))
    spread = max(USUAL_SPREAD if family.spread is None else family.spread, LEAST_SPREAD)
    for rounds in range(2, MOST_ROUNDS):
        freedom = contrasts * (rounds - 1)
        critical = special.stdtrit(freedom, 1 - (1 - CONFIDENCE) / contrasts / 2)
        if math.log1p(difference) * math.sqrt(rounds) / spread >= critical + special.stdtrit(freedom, POWER):
            return rounds
    return MOST_ROUNDS


def _align(logs: Sequence[Sequence[float]]) -> np.ndarray:
    rows = np.full((len(logs), max((len(row) for row in logs), default=0)), math.nan)
    for row, values in zip(rows, logs, strict=True):
        row[: len(values)] = values
    return rows


def _errors(rows: np.ndarray, counts: np.ndarray, *, dimensions: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(standard errors, degrees of freedom, at how many levels they have to agree) of the moderated and of the own spread."""
    if not len(rows):
        return [(np.zeros(0), np.zeros(0), 1.0)]
    variances = np.maximum(np.nanvar(rows, axis=1, ddof=1), LEAST_SPREAD**2)
    freedom = counts - 1.0
    moderated, pooled = variances.copy(), freedom.copy()
    for count in np.unique(counts):
        same = counts == count
        moderated[same], pooled[same] = moderate(variances[same], freedom=count - 1.0)
        pooled[same] = np.minimum(pooled[same], dimensions * (count - 1.0))
    return [(np.sqrt(moderated / counts), pooled, 1.0), (np.sqrt(variances / counts), freedom, OWN_SHARE)]


def _judge_mean(rows: np.ndarray, limits: Limits) -> Difference | None:
    """The mean over all contrasts, of the rounds that have all of them."""
    whole = rows[:, np.isfinite(rows).all(axis=0)].mean(axis=0)
    if whole.size < 2:
        return None
    error = max(float(whole.std(ddof=1)), LEAST_SPREAD) / math.sqrt(whole.size)
    p_value = 2 * float(special.stdtr(whole.size - 1, -abs(whole.mean()) / error)) / MEAN_SHARE
    width = error * float(special.stdtrit(whole.size - 1, 1 - (1 - CONFIDENCE) * MEAN_SHARE / 2))
    return _finish(float(whole.mean()), width, rounds=whole.size, p_value=min(1.0, p_value), limits=limits)


def _unknown(mean: float, rounds: int) -> Difference:
    return Difference(mean=mean, low=None, high=None, rounds=rounds, p_value=None, call=Call.OPEN)


def _finish(mean: float, width: float, *, rounds: int, p_value: float, limits: Limits) -> Difference:
    """A difference of mean ± width, and the call that follows from nothing else."""
    low, high, call = mean - width, mean + width, Call.OPEN
    if low > 0 and mean >= limits.least:
        call = Call.FASTER
    elif high < 0 and mean <= -limits.least:
        call = Call.SLOWER
    elif max(-low, high) <= limits.equal_within:
        call = Call.EQUAL
    return Difference(mean=mean, low=low, high=high, rounds=rounds, p_value=p_value, call=call)


def _as_ratio(found: Difference) -> Contrast:
    low, high = (None if end is None else _exp(end) for end in (found.low, found.high))
    return Contrast(
        ratio=_exp(found.mean), low=low, high=high, rounds=found.rounds, p_value=found.p_value, call=found.call
    )


def _exp(value: float) -> float:
    """e^value; infinite beyond all numbers, as the end of an interval may be."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))
