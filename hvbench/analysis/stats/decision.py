"""Evidence of a family of contrasts -> estimates, corrected intervals and p-values, many families at a time. Pure.

Everything is an array whose last axis is the contrasts; axes before are independent families, so that a study decides thousands
at once by the rule that a report asks.

- A contrast's error is the larger of its own and of that which all pool (one that is clearly noisier than the rest, by an F test at
  `CLEARLY_NOISIER`, is not pooled). Its degrees of freedom are those of all, fewer the more its own spread exceeds the pool's.
- Its own spread alone, by Student's t, has to agree at `OWN_SHARE` times the level.
- The mean over the contrasts is taken round by round, for what moves a round may move all of them. Its error is the larger of its own and of
  the one that follows from the contrasts' if chance alone is common to a round; both have to agree likewise. It has `MEAN_SHARE` of the level. Where it
  is called, the contrasts have all of the level, else the rest of it.
- The contrasts are corrected by Holm.
- The best of some points is chosen by the very figures that then compare it with each of the others. So all pairs of points are corrected
  for, though only those of the best are looked at, and the pool is of the points: what scatters beside their own means and their rounds'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.ratios import adjust_holm_rows

OWN_SHARE = 3.5
MEAN_SHARE = 0.4
CLEARLY_NOISIER = 0.001
LEAST_SPREAD = 1e-6  # rounds that are all the same are known this well, no better
CENTRINGS = 20  # of rows and columns in turn; where no round is missing the first is exact


# Standard errors, degrees of freedom, and at how many levels they have to agree; all of them have to.
Errors = tuple[tuple[np.ndarray, np.ndarray, float], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Arrays (…, contrasts): an estimate, the variance of one unit of its evidence, and how many units and degrees of freedom."""

    centre: np.ndarray
    variance: np.ndarray
    size: np.ndarray  # the squared standard error is variance / size
    freedom: np.ndarray  # below 1: one launch says nothing about chance
    rounds: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Arrays (…, 1): the variance of one round of a contrast of two points, pooled over all of them, and its degrees of freedom."""

    variance: np.ndarray
    freedom: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Of the contrasts, and of their mean as one more contrast (…, 1)."""

    each: Sample
    mean: Sample
    points: Pool | None = None  # of contrasts of the best point with each of the others


@dataclass(frozen=True, kw_only=True, eq=False)
class Decided:
    """Arrays (…, contrasts), with the mean after the last of them where it is a claim; NaN where there is no evidence about chance."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray  # two-sided, corrected: at most 5 % exactly where the interval leaves out 0
    rounds: np.ndarray
    spread: np.ndarray  # (…): of one unit of evidence, pooled
    has_mean: bool


def gather_pairs(values: np.ndarray) -> Evidence:
    """Evidence of differences (…, contrasts, rounds), NaN where a contrast lacks the round."""
    each = _sample(values)
    return Evidence(each=each, mean=_sample(_average(values, each.freedom >= 1)))


def gather_best(values: np.ndarray) -> Evidence:
    """Evidence of differences of the best point from each of the others (…, others, rounds), NaN where either lacks the round."""
    evidence = gather_pairs(values)
    return replace(evidence, points=_pool_points(values, evidence.each.freedom >= 1))


def gather_samples(a: np.ndarray, b: np.ndarray) -> Evidence:
    """The same of sides (…, contrasts, launches) that are not paired: differences of their means (Welch, Satterthwaite)."""
    each = _subtract(_sample(a), _sample(b))
    means = [_sample(_average(side, each.freedom >= 1)) for side in (a, b)]
    return Evidence(each=each, mean=_subtract(*means))


def decide(evidence: Evidence, *, has_mean: bool = True) -> Decided:
    """Decide on every contrast, and on their mean where it `has_mean` and there are several (never of the best against the others)."""
    each, level = evidence.each, 1 - CONFIDENCE
    count = each.centre.shape[-1]
    is_known = each.freedom >= 1
    errors = find_errors(evidence, is_known)
    p_value = np.max([_two_sided(each.centre, error, freedom) / share for error, freedom, share in errors], axis=0)
    p_value = np.where(is_known, np.minimum(p_value, 1.0), 1.0)
    has_mean = has_mean and count > 1 and evidence.points is None
    of_mean, share = _decide_mean(evidence, level=level) if has_mean else (None, np.ones((*each.centre.shape[:-1], 1)))
    members = is_known.sum(axis=-1, keepdims=True)
    unseen = members * (members - 1) // 2 if evidence.points else 0  # pairs of the points that are not the best
    adjusted = adjust_holm_rows(p_value, is_known, unseen) / share
    at = level * share / np.maximum(members + unseen, 1)
    # Holm's later steps are less strict than an even share: there the interval is at the level that the call was made at.
    is_by_share = (adjusted <= level) == (p_value <= at)
    at = np.where(is_by_share, at, level * p_value / np.where(adjusted > 0, adjusted, 1.0))
    width = np.max([error * _quantile(at * own, freedom) for error, freedom, own in errors], axis=0)
    found = [
        each.centre,
        *(np.where(is_known, values, np.nan) for values in (each.centre - width, each.centre + width)),
        np.where(is_known, np.minimum(adjusted, 1.0), np.nan),
        each.rounds,
    ]
    if of_mean:
        found = [np.concatenate(pair, axis=-1) for pair in zip(found, of_mean, strict=True)]
    mean, low, high, corrected, rounds = found
    spread = _find_spread(evidence, is_known)
    return Decided(mean=mean, low=low, high=high, p_value=corrected, rounds=rounds, spread=spread, has_mean=has_mean)


def find_errors(evidence: Evidence, is_known: np.ndarray) -> Errors:
    """Those of the contrasts: with the pool, and each contrast's own."""
    each = evidence.each
    variance = np.where(is_known, np.maximum(each.variance, LEAST_SPREAD**2), LEAST_SPREAD**2)
    freedom = np.where(is_known, each.freedom, 0.0)
    pool = evidence.points or _pool_contrasts(variance, freedom)
    larger, size = np.maximum(variance, pool.variance), np.maximum(each.size, 1e-9)
    of_pool = np.maximum(freedom, pool.freedom * np.square(pool.variance / larger))
    known = np.where(is_known, freedom, 1.0)
    return (
        (np.sqrt(larger / size), np.where(is_known, of_pool, 1.0), 1.0),
        (np.sqrt(variance / size), known, OWN_SHARE),
    )


def _find_spread(evidence: Evidence, is_known: np.ndarray) -> np.ndarray:
    """(…): standard deviation of one unit of evidence, pooled over the contrasts; NaN where none has evidence about chance."""
    if evidence.points:
        return np.where(is_known.any(axis=-1), np.sqrt(evidence.points.variance[..., 0]), np.nan)
    weights = np.where(is_known, evidence.each.freedom, 0.0)
    with np.errstate(invalid="ignore"):
        return np.sqrt((weights * np.where(is_known, evidence.each.variance, 0.0)).sum(axis=-1) / weights.sum(axis=-1))


def _pool_contrasts(variance: np.ndarray, freedom: np.ndarray) -> Pool:
    """Over (…, contrasts) but the noisiest, if it is clearly noisier than the rest."""
    weighted = freedom * variance
    rest_freedom = freedom.sum(axis=-1, keepdims=True) - freedom
    rest = (weighted.sum(axis=-1, keepdims=True) - weighted) / np.maximum(rest_freedom, 1.0)
    ceiling = special.fdtri(np.maximum(freedom, 1.0), np.maximum(rest_freedom, 1.0), 1 - CLEARLY_NOISIER) * rest
    is_noisiest = variance >= variance.max(axis=-1, keepdims=True)
    is_pooled = ~(is_noisiest & (variance > ceiling) & (rest_freedom >= 1))
    together = (is_pooled * freedom).sum(axis=-1, keepdims=True)
    return Pool(
        variance=(is_pooled * weighted).sum(axis=-1, keepdims=True) / np.maximum(together, 1.0), freedom=together
    )


def _pool_points(values: np.ndarray, is_known: np.ndarray) -> Pool:
    """Over the points of contrasts (…, others, rounds): twice the variance of what their own means and their rounds' leave.

    The best point's own row is 0 in every round: it was subtracted from all. Where all have the same rounds this is the mean variance
    of all pairs.
    """
    is_there = np.isfinite(values) & is_known[..., None]
    of_best = is_there.any(axis=-2, keepdims=True)
    is_there = np.concatenate([of_best, is_there], axis=-2)
    rest = np.where(is_there, np.concatenate([np.zeros(of_best.shape), values], axis=-2), 0.0)
    for _ in range(1 if is_there.all() else CENTRINGS):
        for axis in (-1, -2):
            count = np.maximum(is_there.sum(axis=axis, keepdims=True), 1)
            rest = np.where(is_there, rest - rest.sum(axis=axis, keepdims=True) / count, 0.0)
    rows, columns = (is_there.any(axis=axis).sum(axis=-1) for axis in (-1, -2))
    freedom = np.maximum(is_there.sum(axis=(-2, -1)) - rows - columns + 1.0, 1.0)
    variance = 2 * np.square(rest).sum(axis=(-2, -1)) / freedom
    return Pool(variance=np.maximum(variance, LEAST_SPREAD**2)[..., None], freedom=freedom[..., None])


def _decide_mean(evidence: Evidence, *, level: float) -> tuple[list[np.ndarray], np.ndarray]:
    """(estimate, low, high, corrected p-value, rounds) of the mean, and the share of the level that it leaves to the contrasts."""
    mean, level_of_mean = evidence.mean, level * MEAN_SHARE
    is_known = mean.freedom >= 1
    errors = find_errors_of_mean(evidence, is_known)
    p_values = [_two_sided(mean.centre, error, freedom) / own for error, freedom, own in errors]
    p_value = np.where(is_known, np.minimum(np.max(p_values, axis=0) / MEAN_SHARE, 1.0), np.nan)
    width = np.max([error * _quantile(level_of_mean * own, freedom) for error, freedom, own in errors], axis=0)
    ends = [np.where(is_known, values, np.nan) for values in (mean.centre - width, mean.centre + width)]
    share = np.where(is_known & (p_value > level), 1 - MEAN_SHARE, 1.0)
    return [mean.centre, *ends, p_value, mean.rounds], share


def find_errors_of_mean(evidence: Evidence, is_known: np.ndarray) -> Errors:
    """As `find_errors`, of the mean: beside its own spread there is the one that it has if nothing but chance is common to a round."""
    each, mean = evidence.each, evidence.mean
    is_member = each.freedom >= 1
    squares = np.where(is_member, np.maximum(each.variance, LEAST_SPREAD**2) / np.maximum(each.size, 1e-9), 0.0)
    members = np.maximum(is_member.sum(axis=-1, keepdims=True), 1)
    total = squares.sum(axis=-1, keepdims=True)
    parts = (np.square(squares) / np.maximum(each.freedom, 1.0)).sum(axis=-1, keepdims=True)
    freedom = np.square(total) / np.where(parts > 0, parts, 1.0)  # Satterthwaite
    apart = total / np.square(members)
    own = np.where(is_known, np.maximum(mean.variance, LEAST_SPREAD**2), 1.0) / np.maximum(mean.size, 1e-9)
    larger = np.maximum(own, apart)
    known = np.where(is_known, mean.freedom, 1.0)
    return (
        (np.sqrt(larger), np.maximum(known, freedom * np.square(apart / larger)), 1.0),
        (np.sqrt(own), known, OWN_SHARE),
    )


def _sample(values: np.ndarray) -> Sample:
    """Of differences (…, contrasts, rounds)."""
    is_there = np.isfinite(values)
    rounds = is_there.sum(axis=-1)
    kept = np.where(is_there, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = kept.sum(axis=-1) / rounds
        deviations = np.where(is_there, kept - centre[..., None], 0.0)
        variance = np.square(deviations).sum(axis=-1) / (rounds - 1)
    return Sample(centre=centre, variance=variance, size=rounds.astype(float), freedom=rounds - 1.0, rounds=rounds)


def _average(values: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """(…, 1, rounds): the mean over the contrasts that have evidence about chance, two at least; NaN where one of them lacks the round."""
    members = is_member.sum(axis=-1)[..., None, None]
    total = np.where(is_member[..., None], values, 0.0).sum(axis=-2, keepdims=True)
    return np.where(members > 1, total / np.maximum(members, 1), np.nan)


def _subtract(a: Sample, b: Sample) -> Sample:
    """a - b of independent samples: both spreads count, each by its number of launches."""
    is_known = (a.freedom >= 1) & (b.freedom >= 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = [np.maximum(side.variance, LEAST_SPREAD**2) / side.size for side in (a, b)]
        total = squares[0] + squares[1]
        freedom = np.square(total) / (np.square(squares[0]) / a.freedom + np.square(squares[1]) / b.freedom)
        size = 1 / (1 / a.size + 1 / b.size)
        variance = total * size
    return Sample(
        centre=a.centre - b.centre,
        variance=variance,
        size=np.where(is_known, size, 0.0),
        freedom=np.where(is_known, freedom, 0.0),
        rounds=np.minimum(a.rounds, b.rounds),
    )


def _two_sided(centre: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    return 2 * special.stdtr(freedom, -np.abs(centre) / error)


def _quantile(level: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Student's t that is exceeded, to either side, at a two-sided `level`."""
    return special.stdtrit(freedom, 1 - np.minimum(level, 1.0) / 2)
