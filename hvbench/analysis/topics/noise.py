"""Gradient noise scale: the batch at which the gradient's noise is as large as the gradient itself.

From the norms of gradients over a small batch b and over a large one B of the same parameters (McCandlish et al.,
arXiv:1812.06162, app. A.1), unbiased for every step,

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)        the true gradient
    S     = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)        the trace of the covariance of one sample's gradient

and B_simple = S / |G|^2, both averaged over steps before dividing: a mean of ratios would be biased. Here b is the
micro-batch and B the global batch, so that ranks and accumulation steps serve alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from hvbench.analysis.frame.axes import AXES, varying_axes
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.show.tables import (
    HEADERS,
    INTERVAL,
    NOT_AVAILABLE,
    Table,
    describe_constants,
    format_number,
    show_axis,
)
from hvbench.analysis.stats.estimates import CONFIDENCE, sort_points
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


def noise_table(records: Sequence[Record]) -> Table | None:
    """One row per point whose gradients' noise was measured; None where it was in none."""
    measured = [record for record in records if record.outcome.status == "ok" and read_looks(record).noise.size]
    if not measured:
        return None
    points = sort_points(point_frame(measured).drop_duplicates("point_id"))
    axes = ["framework", *(axis for axis in varying_axes(points) if axis != "framework")]
    rows, cells = [], []
    for _, point in points.iterrows():
        same = [record for record in measured if record.point_id == point["point_id"]]
        batch = same[0].point.global_batch_size
        looks = [read_looks(record) for record in same]
        scales = {"": join_looks(looks), "_late": join_looks(each.late() for each in looks)}
        row = {name: point[name] for name in ("point_id", *AXES)} | {"global_batch_samples": batch, "n": len(same)}
        cell = [show_axis(axis, point[axis], is_emulated=bool(point["is_emulated"])) for axis in axes]
        cell += [str(batch), str(len(same)), str(scales[""].noise.size)]
        for suffix, each in scales.items():
            scale, name = estimate_noise_scale(each), f"noise_scale{suffix}_samples"
            row |= {
                f"looks{suffix}": scale.looks,
                name: scale.centre,
                f"{name}_low": scale.low,
                f"{name}_high": scale.high,
            }
            cell += [show_scale(scale), show_ends(scale)]
        rows.append(row)
        cells.append(cell)
    numeric = [pd.api.types.is_numeric_dtype(points[axis]) for axis in axes]
    return Table(
        name="gradient_noise",
        title="Gradient noise scale",
        constants={name: value for name, value in describe_constants(points).items() if name != "framework"},
        notes=(
            "B_simple (McCandlish et al., arXiv:1812.06162, app. A.1) in samples: well below it a larger batch saves steps "
            "in proportion, well above it saves none. From the norms of each micro-batch's gradient and of their average over "
            "accumulation steps and ranks, both squared and averaged over n launches' looks before dividing; late: the "
            "later half of the looks. Intervals: bootstrap (BCa) over looks; open: the gradient cannot be told from its "
            "noise.",
        ),
        data=pd.DataFrame(rows),
        header=(
            *(HEADERS.get(axis, axis) for axis in axes), "global batch", "n", "looks",
            "noise scale", INTERVAL, "noise scale, late", f"{INTERVAL} (late)",
        ),
        is_number=(*numeric, True, True, True, True, False, True, False),
        is_brief=(True,) * (len(axes) + 7),
        cells=cells,
    )  # fmt: skip


def show_scale(scale: NoiseScale) -> str:
    """The centre in samples, or that there is none."""
    return NOT_AVAILABLE if scale.centre is None else format_number(scale.centre)


def show_ends(scale: NoiseScale) -> str:
    """`12.3 to 40.1`, `12.3 to open`, or how many looks there are where they are too few."""
    if scale.looks < MIN_LOOKS:
        return f"{scale.looks} looks"
    low, high = ("open" if end is None else format_number(end) for end in (scale.low, scale.high))
    return f"{low} to {high}"


def _invert(value: float) -> float | None:
    return 1 / value if value > 0 else None
