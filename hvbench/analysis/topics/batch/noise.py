"""Gradient noise scale: the batch at which the gradient's noise is as large as the gradient itself.

From the norms of gradients over a small batch b and over a large one B of the same parameters (McCandlish et al.,
arXiv:1812.06162, app. A.1), unbiased for every step,

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)        the true gradient
    S     = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)        the trace of the covariance of one sample's gradient

and B_simple = S / |G|^2, both averaged over steps before dividing: a mean of ratios would be biased. Here b is the
micro-batch and B the global batch, so that ranks and accumulation steps serve equally.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.records.record import Record

MIN_LOOKS = 5  # fewer say too little about their own scatter


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Unbiased estimates of each look, (looks,): `noise` is S, `signal` is |G|^2, `step` how far training was.

    `training` names the point and the seed: looks at one step of one training see the same weights and the same samples.
    """

    step: np.ndarray
    noise: np.ndarray
    signal: np.ndarray
    training: np.ndarray = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.training is None:
            object.__setattr__(self, "training", np.full(self.step.shape, "", dtype=object))

    def late(self) -> Looks:
        """The later half of the looks."""
        keep = self.step >= np.median(self.step) if self.step.size else np.zeros(0, bool)
        return Looks(**{name: values[keep] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """B_simple in samples; None where the gradient drowns in its noise (no centre) or an end is open (no bound)."""

    centre: float | None
    low: float | None
    high: float | None
    looks: int


def read_looks(record: Record) -> Looks:
    """What one launch measured; a look without a finite norm on every rank, or with one micro-batch, says nothing."""
    if record.is_script:  # which has no micro-batches that hvbench knows of
        return join_looks(())
    b = record.point.micro_batch_size
    steps, small, large, sizes = [], [], [], []
    by_rank = [{look.step: look for look in rank.gradient_noise} for rank in record.ranks]
    for step in sorted(set.intersection(*map(set, by_rank))) if by_rank else []:
        looks = [each[step] for each in by_rank]
        norms = [norm for look in looks for norm in look.micro_gradient_norms]
        if len(norms) > 1 and None not in norms and looks[0].gradient_norm is not None:
            steps.append(step)
            small.append(np.mean(np.square(norms)))
            large.append(looks[0].gradient_norm ** 2)
            sizes.append(b * len(norms))
    small, large, B = np.array(small), np.array(large), np.array(sizes, dtype=float)
    return Looks(
        step=np.array(steps, dtype=int),
        noise=(small - large) / (1 / b - 1 / B),
        signal=(B * large - b * small) / (B - b),
        training=np.full(len(steps), f"{record.point_id} {record.trained_seed}", dtype=object),
    )


def join_looks(looks: Iterable[Looks]) -> Looks:
    """The looks of several launches as those of one: launches of one seed look at the same, and are averaged step by step."""
    looks = list(looks)
    if not looks:
        return Looks(step=np.zeros(0, int), noise=np.zeros(0), signal=np.zeros(0))
    joined = {name: np.concatenate([getattr(each, name) for each in looks]) for name in vars(looks[0])}
    places: dict[tuple[str, int], list[int]] = {}
    for place, key in enumerate(zip(joined["training"].tolist(), joined["step"].tolist(), strict=True)):
        places.setdefault(key, []).append(place)
    if len(places) == joined["step"].size:
        return Looks(**joined)
    means = {name: np.array([joined[name][same].mean() for same in places.values()]) for name in ("noise", "signal")}
    firsts = [same[0] for same in places.values()]
    return Looks(step=joined["step"][firsts], training=joined["training"][firsts], **means)


def estimate_noise_scale(looks: Looks) -> NoiseScale:
    """B_simple with the interval of a ratio of means over looks (Fieller, J. R. Stat. Soc. B 16, 1954): different steps see different samples.

    The interval holds every ratio r for which the mean of S - r |G|^2 may be 0 by Student's t. Where |G|^2 may
    be 0, it is open above.
    """
    count = int(looks.noise.size)
    if count == 0 or np.mean(looks.noise) <= 0:
        return NoiseScale(centre=None, low=None, high=None, looks=count)
    signal, noise = looks.signal, looks.noise
    centre = _invert(float(np.mean(signal) / np.mean(noise)))
    if count < MIN_LOOKS or not (
        np.ptp(signal) or np.ptp(noise)
    ):  # looks that are all equal do not say how they scatter
        return NoiseScale(centre=centre, low=None, high=None, looks=count)
    least, most = bound_ratio(signal, noise)
    return NoiseScale(centre=centre, low=_invert(most), high=_invert(least), looks=count)


def bound_ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """Fieller's interval of mean(above) / mean(below), of pairs (n,): infinite ends where the mean of `below` may be 0."""
    n = above.size
    factor = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) ** 2 / n
    (vx, cov), (_, vy) = np.cov(above, below) * factor
    x, y = float(above.mean()), float(below.mean())
    # (x - r y)^2 <= vx - 2 r cov + r^2 vy, a quadratic in r
    a, b, c = y**2 - vy, x * y - cov, x**2 - vx
    root = b**2 - a * c
    if a <= 0 or root < 0:
        return -math.inf, math.inf
    return (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a


def _invert(value: float) -> float | None:
    return 1 / value if value > 0 else None


def measured_looks(run: Run) -> dict[str, list[tuple[Record, Looks]]]:
    """Point id -> its launches that ended in `ok` and measured the noise, and what they measured; read once."""
    return run.derive(_read_run)


def _read_run(run: Run) -> dict[str, list[tuple[Record, Looks]]]:
    found: dict[str, list[tuple[Record, Looks]]] = {}
    for record in run.records:
        if record.outcome.status == "ok" and (looks := read_looks(record)).noise.size:
            found.setdefault(record.point_id, []).append((record, looks))
    return found
