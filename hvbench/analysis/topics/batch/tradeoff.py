"""What a larger batch costs: steps against samples to the same loss, and the critical batch between them.

    S = S_min (1 + B_crit / B),    E = B S,    B_crit = E_min / S_min

(McCandlish et al., arXiv:1812.06162, eq. 2.11, there as (S/S_min - 1)(E/E_min - 1) = 1): S steps and E samples reach the
target with batch B. A tiny batch needs the fewest samples, E_min; a huge one the fewest steps, S_min.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import choose_rows, combine_axes
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.estimates import Estimate
from hvbench.analysis.stats.survival import Observed, all_reached, join_seeds
from hvbench.analysis.topics.batch.noise import NoiseScale, estimate_noise_scale, join_looks, read_looks
from hvbench.analysis.topics.batch.sentences import MIN_BATCHES, curve_axes, sum_batches
from hvbench.analysis.topics.targets import observe


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The trade-off's parameters; intervals are None where the data leave them open."""

    fewest_steps: Estimate  # S_min
    fewest_samples: Estimate  # E_min
    critical_batch: Estimate  # in samples


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one framework needed to reach the target at several global batches, all else equal."""

    chosen: dict[str, Any]  # its framework, and the values of the axes that vary beside the batch
    is_emulated: bool
    launches: dict[int, list[Observed]]  # global batch -> steps to the target of each launch
    fit: Fit | None
    noise: NoiseScale  # late, of all batches together at which every launch arrived

    @property
    def complete(self) -> dict[int, list[Observed]]:
        """The batches at which every launch arrived: dropping the others' misses would bend the curve."""
        return {batch: each for batch, each in self.launches.items() if all_reached(each)}


def fit_tradeoff(batches: Sequence[float], steps: Sequence[float]) -> Fit | None:
    """Least squares of log S over batches (arrays of one length, one value a seed); None below MIN_BATCHES distinct batches or a step.

    The values of one batch are averaged as logarithms and count as one: what the batch itself does to S (the law holds
    only roughly, and evaluations are few) their scatter does not show. Parameters are fitted as logarithms, so that they
    and their intervals (Student's t) are positive.
    """
    sizes = sorted(set(batches))
    if len(sizes) < MIN_BATCHES or min(steps) <= 0:
        return None
    logs = np.log(np.asarray(steps, dtype=float))
    x = np.asarray(sizes, dtype=float)
    y = np.array([logs[np.asarray(batches) == size].mean() for size in sizes])

    def log_steps(batch: np.ndarray, log_fewest_steps: float, log_fewest_samples: float) -> np.ndarray:
        return np.logaddexp(log_fewest_steps, log_fewest_samples - np.log(batch))

    start = (float(y.min()), float((y + np.log(x)).min()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # a parameter without a say: its interval is open
        try:
            (a, b), covariance = optimize.curve_fit(log_steps, x, y, p0=start)
        except RuntimeError:  # it does not converge: the data have no bend
            return None
    if not np.isfinite(covariance).all():  # no bend within the batches: nothing has a bound
        covariance = np.full((2, 2), math.nan)
    variances = (covariance[0, 0], covariance[1, 1], covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    factor = float(special.stdtrit(y.size - 2, (1 + CONFIDENCE) / 2))
    found = [
        _estimate(log, variance, factor=factor, n=y.size)
        for log, variance in zip((a, b, b - a), variances, strict=True)
    ]
    return Fit(fewest_steps=found[0], fewest_samples=found[1], critical_batch=found[2])


def steps_between(launches: Sequence[Observed]) -> list[float]:
    """Steps to the target of each seed: where the line between the evaluation that reached it and the one before meets it.

    Half of the first evaluation's steps where that was under it already.
    """
    return [_cross(one) for one in join_seeds(launches)]


def _cross(one: Observed) -> float:
    if one.crossing is not None and one.since:
        return one.crossing
    return (one.value + (one.value if one.since is None else one.since)) / 2


def find_curves(run: Run) -> list[Curve]:
    """Every configuration with a target and MIN_BATCHES or more global batches, in each framework; fitted once."""
    return run.derive(_find_curves)


def find_common_curves(run: Run) -> list[Curve]:
    """The same over all frameworks together: launches of one seed are one piece of evidence, whichever framework trained them."""
    return run.derive(_find_common_curves)


def _find_curves(run: Run) -> list[Curve]:
    return _fit_curves(run, ["framework"])


def _find_common_curves(run: Run) -> list[Curve]:
    return _fit_curves(run, [])


def _fit_curves(run: Run, leading: Sequence[str]) -> list[Curve]:
    points = run.points[run.points["batch_warmup_steps"] == 0]  # S steps of one batch B: a batch that grows is none
    if not (points["target_loss"].notna() & points["world_size"].notna()).any():
        return []
    batch = sum_batches(points)
    curves = []
    for chosen in combine_axes(points, [*leading, *curve_axes(points)]):
        mine = choose_rows(points, chosen)
        launches = {int(size): observe(group, "steps") for size, group in mine.groupby(batch[mine.index])}
        launches = {size: each for size, each in launches.items() if each}
        if len(launches) < MIN_BATCHES:
            continue
        complete = {size: each for size, each in launches.items() if all_reached(each)}
        arrivals = [(size, steps) for size, each in complete.items() for steps in steps_between(each)]
        # Gradients of a training that goes astray say nothing of those on the way to the target.
        ids = set(mine.loc[batch[mine.index].isin(list(complete)), "point_id"])
        looks = [
            read_looks(record).late()
            for record in run.records
            if record.point_id in ids and record.outcome.status == "ok"
        ]
        curves.append(
            Curve(
                chosen=chosen,
                is_emulated=bool(mine["is_emulated"].any()),
                launches=launches,
                fit=fit_tradeoff(*zip(*arrivals, strict=True)) if arrivals else None,
                noise=estimate_noise_scale(join_looks(looks)),
            )
        )
    return curves


def _estimate(log: float, variance: float, *, factor: float, n: int) -> Estimate:
    half = factor * math.sqrt(variance) if math.isfinite(variance) and variance >= 0 else math.inf
    is_open = not half < math.log(1e6)  # a factor of a million either way says nothing
    low, high = (None, None) if is_open else (math.exp(log - half), math.exp(log + half))
    return Estimate(centre=math.exp(log), low=low, high=high, n=n)
