"""Time to a target when some launches never reach it: censored, not left out.

A mean over the launches that got there is a mean over the lucky ones. Kaplan and Meier (J. Am. Stat. Assoc. 53, 1958)
keep the others as what they are: still on the way when they were last seen. A launch that diverged, failed or gave up
(patience) never arrives, however long one waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from hvbench.analysis.stats.confidence import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One launch: `value` is when it reached the target, or until when it was seen not to (infinite: for ever).

    Launches of one `seed` are one piece of evidence about the way to a loss; None: it has a seed of its own. `since`
    is when it was last seen above the target before it reached it, `crossing` where the line between both meets it.
    """

    value: float
    is_reached: bool
    seed: int | None = field(default=None, compare=False)
    since: float | None = field(default=None, compare=False)
    crossing: float | None = field(default=None, compare=False)


def all_reached(launches: Sequence[Observed]) -> bool:
    """Whether every launch reached the target."""
    return all(one.is_reached for one in launches)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """When half of the seeds have arrived; None where fewer than half did, or where the interval is open.

    `n` and `reached` count launches, `seeds` the pieces of evidence that the interval rests on.
    """

    median: float | None
    low: float | None
    high: float | None
    n: int
    reached: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of launches that have arrived, as steps: `shares[i]` from `values[i]` on."""

    values: list[float]
    shares: list[float]


def estimate_arrival(launches: Sequence[Observed]) -> Arrival:
    """The Kaplan-Meier median over seeds and its interval, in the unit of `value`.

    The interval holds every time at which that of the share still on the way (`bound_survival`) contains one half: with
    fewer than six seeds one end at least is open. ValueError without launches.
    """
    if not launches:
        raise ValueError("an arrival needs at least one launch")
    reached = sum(one.is_reached for one in launches)
    seeds = join_seeds(launches)
    median = median_arrival(seeds)
    low, high = bound_median(seeds) if len(seeds) > 1 else (None, None)
    return Arrival(median=median, low=low, high=high, n=len(launches), reached=reached, seeds=len(seeds))


def join_seeds(launches: Sequence[Observed]) -> list[Observed]:
    """One observation a seed: the median of its launches; never or not yet arrived where half of them did not arrive."""
    groups: dict[object, list[Observed]] = {}
    for number, one in enumerate(launches):
        groups.setdefault(("launch", number) if one.seed is None else ("seed", one.seed), []).append(one)
    return [same[0] if len(same) == 1 else _join(same) for same in groups.values()]


def _join(launches: Sequence[Observed]) -> Observed:
    median = median_arrival(launches)
    if median is None:
        last = max(one.value for one in launches if not one.is_reached)
        return Observed(value=last, is_reached=False, seed=launches[0].seed)
    since = [one.since for one in launches if one.is_reached and one.since is not None]
    crossings = [one.crossing for one in launches if one.crossing is not None]
    return Observed(
        value=median,
        is_reached=True,
        seed=launches[0].seed,
        since=min(since, default=None),
        crossing=float(np.median(crossings)) if crossings else None,
    )


def median_arrival(launches: Sequence[Observed]) -> float | None:
    """From when on the Kaplan-Meier estimate of the share still on the way is at most one half; None: it never is."""
    if not any(one.is_reached for one in launches):
        return None
    survival = _fit(launches).sf
    found = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[found[0]]) if found.size else None


def bound_median(launches: Sequence[Observed], *, confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
    """(low, high) of the median: where `bound_survival` first lets it be, and from where on it no longer does."""
    times, low, high = bound_survival(launches, confidence=confidence)
    may_be_past = np.flatnonzero(low <= 0.5)
    must_be_past = np.flatnonzero(high <= 0.5)
    first = None if not may_be_past.size or may_be_past[0] == 0 else float(times[may_be_past[0]])
    last = float(times[must_be_past[0]]) if must_be_past.size else None
    return first, last if last is None or math.isfinite(last) else None


def bound_survival(
    launches: Sequence[Observed], *, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(times, low, high): the interval of the share still on the way from each time on; the first time is -infinity.

    The beta product confidence procedure (Fay, Brittain and Proschan, Biostatistics 14, 2013, by moments): it covers at
    least as often as it says for any number of launches, and is Clopper and Pearson's interval where nothing is censored.
    """
    values = np.array([one.value for one in launches])
    arrived = np.array([one.is_reached for one in launches])
    times = np.unique(values)
    tail = (1 - confidence) / 2
    mean = second = 1.0  # moments of the product of betas so far
    low, high = [_lower(mean, second, at_risk=values.size, tail=tail)], [1.0]
    for time in times:
        at_risk, events = int((values >= time).sum()), int(((values == time) & arrived).sum())
        if events:
            mean, second = _times_beta(mean, second, at_risk - events + 1, events)
        low.append(_lower(mean, second, at_risk=int((values > time).sum()), tail=tail))
        high.append(_quantile(mean, second, 1 - tail))
    return np.concatenate([[-math.inf], times]), np.array(low), np.array(high)


def _lower(mean: float, second: float, *, at_risk: int, tail: float) -> float:
    """The lower end, until the next of `at_risk` launches arrives; 0 where nobody is left."""
    return _quantile(*_times_beta(mean, second, at_risk, 1), tail) if at_risk else 0.0


def _times_beta(mean: float, second: float, a: float, b: float) -> tuple[float, float]:
    """First and second moment of a variable times an independent Beta(a, b)."""
    total = a + b
    return mean * a / total, second * a * (a + 1) / (total * (total + 1))


def _quantile(mean: float, second: float, probability: float) -> float:
    """Of the beta distribution with these moments."""
    variance = second - mean**2
    if variance <= 1e-15:
        return mean
    size = mean * (1 - mean) / variance - 1
    return float(special.betaincinv(mean * size, (1 - mean) * size, probability))


def share_arrived(launches: Sequence[Observed]) -> Share:
    """One minus the Kaplan-Meier estimate; empty where nobody arrived."""
    if not any(one.is_reached for one in launches):
        return Share(values=[], shares=[])
    cdf = _fit(launches).cdf
    return Share(values=cdf.quantiles.tolist(), shares=cdf.probabilities.tolist())


def _fit(launches: Sequence[Observed]):
    last = max(one.value for one in launches if math.isfinite(one.value))
    values = np.array([min(one.value, last + 1.0) for one in launches])  # beyond all others is as good as for ever
    return scipy_stats.ecdf(scipy_stats.CensoredData.right_censored(values, [not one.is_reached for one in launches]))
