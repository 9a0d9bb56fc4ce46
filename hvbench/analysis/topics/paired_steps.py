"""The step times of two points, paired by repeat -> their ratio and difference, as estimates and as text.

Repeats are interleaved, so a machine that drifts moves both launches of a pair the same. Ratios and intervals are over the logarithms of the pairs'
step times, differences over the step times themselves (Student's t, paired).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.show.cells import NOT_AVAILABLE, format_number
from hvbench.analysis.show.panels import choose_rows
from hvbench.analysis.stats.estimates import Estimate, estimate_mean
from hvbench.analysis.stats.ratios import Ratio, paired_ratio


def find_launches(
    points: pd.DataFrame, point: Mapping[str, Any], *, changed: Mapping[str, Any], free: Collection[str] = ()
) -> pd.DataFrame:
    """Launches of `point_frame` that are `point` with `changed`, whatever they have in `free`."""
    wanted = {**{name: point[name] for name in AXES if name not in free}, **changed}
    return choose_rows(points, {name: None if pd.isna(value) else value for name, value in wanted.items()})


def step_ratio(launches: pd.DataFrame, base: pd.DataFrame) -> Ratio | None:
    """Step seconds of `launches` over those of `base`; None without a repeat that both have."""
    pairs = _merge(launches, base)
    return paired_ratio(pairs[f"{STEP}_base"].tolist(), pairs[STEP].tolist()) if len(pairs) else None


def step_difference(launches: pd.DataFrame, base: pd.DataFrame) -> Estimate | None:
    """By how many seconds a step of `launches` takes longer than one of `base`; None without a repeat that both have."""
    pairs = _merge(launches, base)
    return estimate_mean((pairs[STEP] - pairs[f"{STEP}_base"]).astype(float).tolist()) if len(pairs) else None


def spread_columns(
    name: str, centre: float | None = None, low: float | None = None, high: float | None = None
) -> dict[str, float | None]:
    """A figure and its interval as columns of raw values."""
    return {name: centre, f"{name}_low": low, f"{name}_high": high}


def show_ends(estimate: Estimate, *, scale: float) -> str:
    """`90.1 to 95.0`."""
    if estimate.low is None or estimate.high is None:
        return f"n={estimate.n}"
    return f"{format_number(scale * estimate.low, decimals=1)} to {format_number(scale * estimate.high, decimals=1)}"


def show_ratio(ratio: Ratio | None) -> str:
    """`1.06 (1.01 … 1.12)`."""
    if ratio is None:
        return NOT_AVAILABLE
    return f"{ratio.ratio:.2f}" + (
        f" ({ratio.low:.2f} … {ratio.high:.2f})" if ratio.low is not None else f" (n={ratio.n_a})"
    )


def show_difference(difference: Estimate | None) -> str:
    """`12.3 (4.5 … 20.1)`, in milliseconds."""
    if difference is None:
        return NOT_AVAILABLE
    has_ends = difference.low is not None and difference.high is not None
    ends = f" ({1e3 * difference.low:.1f} … {1e3 * difference.high:.1f})" if has_ends else f" (n={difference.n})"
    return f"{1e3 * difference.centre:.1f}{ends}"


def _merge(launches: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """A row per repeat that both have."""
    return launches[["repeat", STEP]].merge(base[["repeat", STEP]], on="repeat", suffixes=("", "_base"))
