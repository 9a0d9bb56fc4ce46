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
import pandas as pd
from scipy import optimize, special

from hvbench.analysis.show.panels import choose_rows, combine_axes
from hvbench.analysis.show.tables import (
    HEADERS,
    INTERVAL,
    NOT_AVAILABLE,
    Table,
    describe_constants,
    format_number,
    show_axis,
)
from hvbench.analysis.stats.estimates import CONFIDENCE, Estimate
from hvbench.analysis.stats.survival import Observed, all_reached
from hvbench.analysis.topics.batch_findings import BATCH, MIN_BATCHES, curve_axes, sum_batches
from hvbench.analysis.topics.noise import (
    NoiseScale,
    estimate_noise_scale,
    join_looks,
    read_looks,
    show_ends,
    show_scale,
)
from hvbench.analysis.topics.targets import observe
from hvbench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The trade-off's parameters; intervals are None where the data leave them open."""

    fewest_steps: Estimate  # S_min
    fewest_samples: Estimate  # E_min
    critical_batch: Estimate  # in samples


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One framework's way to the target at several global batches, all else equal."""

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
    """Least squares of log S over launches (arrays of one length); None below MIN_BATCHES distinct batches or a step.

    Parameters are fitted as logarithms, so that they and their intervals (Student's t) are positive.
    """
    if len(set(batches)) < MIN_BATCHES or min(steps) <= 0:
        return None
    x, y = np.asarray(batches, dtype=float), np.log(np.asarray(steps, dtype=float))

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


def find_curves(points: pd.DataFrame, records: Sequence[Record]) -> list[Curve]:
    """Every way to the target at MIN_BATCHES or more global batches; `points` is `point_frame(records)`."""
    if not (points["target_loss"].notna() & points["world_size"].notna()).any():
        return []
    batch = sum_batches(points)
    curves = []
    for chosen in combine_axes(points, ["framework", *curve_axes(points)]):
        mine = choose_rows(points, chosen)
        launches = {int(size): observe(group, "steps") for size, group in mine.groupby(batch[mine.index])}
        launches = {size: each for size, each in launches.items() if each}
        if len(launches) < MIN_BATCHES:
            continue
        complete = {size: each for size, each in launches.items() if all_reached(each)}
        arrivals = [(size, one.value) for size, each in complete.items() for one in each]
        # Gradients of a training that goes astray say nothing of those on the way to the target.
        ids = set(mine.loc[batch[mine.index].isin(list(complete)), "point_id"])
        looks = [
            read_looks(record).late() for record in records if record.point_id in ids and record.outcome.status == "ok"
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


def tradeoff_table(points: pd.DataFrame, records: Sequence[Record]) -> Table | None:
    """One row per curve: S_min, E_min, the critical batch that they mean and the noise scale that predicts it."""
    curves = find_curves(points, records)
    if not curves:
        return None
    axes = list(curves[0].chosen)
    rows, cells = [], []
    for curve in curves:
        complete = curve.complete
        n = sum(len(each) for each in complete.values())
        row: dict[str, Any] = {
            **curve.chosen,
            "n": n,
            "batches": len(complete),
            "batches_not_reached": len(curve.launches) - len(complete),
        }
        cell = [show_axis(axis, value, is_emulated=curve.is_emulated) for axis, value in curve.chosen.items()]
        cell += [str(n), f"{len(complete)} of {len(curve.launches)}"]
        for name in ("fewest_steps", "fewest_samples", "critical_batch"):
            estimate = getattr(curve.fit, name) if curve.fit else None
            low, high = (estimate.low, estimate.high) if estimate else (None, None)
            row |= {name: estimate and estimate.centre, f"{name}_low": low, f"{name}_high": high}
            ends = ["open" if end is None else format_number(end) for end in (low, high)]
            centre = NOT_AVAILABLE if estimate is None or estimate.low is None else format_number(estimate.centre)
            cell += [centre, " to ".join(ends) if estimate else "no fit"]
        noise = curve.noise
        row |= {
            "noise_scale_samples": noise.centre,
            "noise_scale_samples_low": noise.low,
            "noise_scale_samples_high": noise.high,
        }
        rows.append(row)
        cells.append([*cell, show_scale(noise), show_ends(noise)])
    return Table(
        name="critical_batch",
        title="What a larger batch costs",
        constants={name: value for name, value in describe_constants(points).items() if name not in ("framework", *BATCH)},
        notes=(
            "S = S_min (1 + B_crit / B) steps and B S samples reach the target with a global batch B (McCandlish et al., "
            "arXiv:1812.06162), fitted to the logarithm of the steps of n launches; a batch at which any launch missed "
            "the target is left out of the fit. Noise scale: measured along the way (later half of the looks), not "
            "fitted; it predicts B_crit only where the learning rate suits each batch.",
        ),
        data=pd.DataFrame(rows),
        header=(
            *(HEADERS.get(axis, axis) for axis in axes), "n", "batches fitted",
            "S_min (steps)", f"{INTERVAL} (S_min)", "E_min (samples)", f"{INTERVAL} (E_min)",
            "B_crit (samples)", f"{INTERVAL} (B_crit)", "noise scale (samples)", f"{INTERVAL} (noise scale)",
        ),
        is_number=(*(pd.api.types.is_numeric_dtype(points[axis]) for axis in axes), True, False, *[True, False] * 4),
        is_brief=(*[True] * len(axes), True, True, *[False] * 4, *[True] * 4),
        cells=cells,
    )  # fmt: skip


def _estimate(log: float, variance: float, *, factor: float, n: int) -> Estimate:
    half = factor * math.sqrt(variance) if math.isfinite(variance) and variance >= 0 else math.inf
    is_open = not half < math.log(1e6)  # a factor of a million either way says nothing
    low, high = (None, None) if is_open else (math.exp(log - half), math.exp(log + half))
    return Estimate(centre=math.exp(log), low=low, high=high, n=n)
