"""Gradient noise scale: the batch at which the gradient's noise is as large as the gradient itself.

From the norms of gradients over a small batch b and over a large one B of the same parameters (McCandlish et al.,
arXiv:1812.06162, app. A.1), unbiased for every step,

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)        the true gradient
    S     = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)        the trace of the covariance of one sample's gradient

and B_simple = S / |G|^2, both averaged over steps before dividing: a mean of ratios would be biased. Here b is the
micro-batch and B the global batch, so that ranks and accumulation steps serve equally.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.records.record import Record

MIN_LOOKS = 5  # fewer say too little about their own scatter
RESAMPLES = 4999


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Unbiased estimates of each look, (looks,): `noise` is S, `signal` is |G|^2, `step` how far training was."""

    step: np.ndarray
    noise: np.ndarray
    signal: np.ndarray

    def late(self) -> Looks:
        """The later half of the looks."""
        keep = self.step >= np.median(self.step) if self.step.size else np.zeros(0, bool)
        return Looks(step=self.step[keep], noise=self.noise[keep], signal=self.signal[keep])


@dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """B_simple in samples; None where the gradient drowns in its noise (no centre) or an end is open (no bound)."""

    centre: float | None
    low: float | None
    high: float | None
    looks: int


def read_looks(record: Record) -> Looks:
    """What one launch measured; a look without a finite norm on every rank, or with one micro-batch, says nothing."""
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
    )


def join_looks(looks: Iterable[Looks]) -> Looks:
    """The looks of several launches as those of one."""
    looks = list(looks)
    names = ("step", "noise", "signal")
    return Looks(**{name: np.concatenate([getattr(each, name) for each in looks] or [np.zeros(0)]) for name in names})


def estimate_noise_scale(looks: Looks) -> NoiseScale:
    """B_simple with a bootstrap interval (BCa, over looks: different steps see different samples).

    The reciprocal is resampled, |G|^2 over S: S stays away from zero, |G|^2 may not, and the interval is then open.
    """
    count = int(looks.noise.size)
    if count == 0 or np.mean(looks.noise) <= 0:
        return NoiseScale(centre=None, low=None, high=None, looks=count)

    def reciprocal(signal: np.ndarray, noise: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(signal, axis=axis) / np.mean(noise, axis=axis)

    centre = _invert(float(reciprocal(looks.signal, looks.noise)))
    if count < MIN_LOOKS:
        return NoiseScale(centre=centre, low=None, high=None, looks=count)
    if not (np.ptp(looks.signal) or np.ptp(looks.noise)):  # looks that are all alike: nothing to resample
        return NoiseScale(centre=centre, low=None, high=None, looks=count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy_stats.DegenerateDataWarning)
        interval = scipy_stats.bootstrap(
            (looks.signal, looks.noise), reciprocal, paired=True, vectorized=True, n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return NoiseScale(centre=centre, low=_invert(float(interval.high)), high=_invert(float(interval.low)), looks=count)


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
