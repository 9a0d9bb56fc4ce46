"""The step times of two points, paired by round -> their ratio, judged by the one rule, and their difference, as figures and as text.

Launches of a round ran side by side or near each other, so a machine that drifts moves both the same. All ratios of a table are one
family; differences are over the medians of the launches' steps (Student's t, paired), and no call is made of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE, format_number
from hvbench.analysis.show.panels import choose_rows
from hvbench.analysis.stats.contrasts import Contrast
from hvbench.analysis.stats.estimates import Estimate, estimate_mean


def find_launches(
    points: pd.DataFrame, point: Mapping[str, Any], *, changed: Mapping[str, Any], free: Collection[str] = ()
) -> pd.DataFrame:
    """Launches of `point_frame` that are `point` with `changed`, whatever they have in `free`."""
    wanted = {**{name: point[name] for name in AXES if name not in free}, **changed}
    return choose_rows(points, {name: None if pd.isna(value) else value for name, value in wanted.items()})


def step_ratios(run: Run, pairs: Mapping[str, tuple[str, str]]) -> dict[str, Contrast]:
    """Name -> step seconds of the first point over those of the second, all of them one family; those without a common round are left out.

    `pairs`: name of a row -> the ids of its two points.
    """
    rows = [({"point_id": one}, {"point_id": other}) for one, other in pairs.values()]
    found = contrast_points(run, rows, metric=STEP).contrasts
    return {name: each.contrast for name, each in zip(pairs, found, strict=True) if each.contrast.rounds}


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


def show_ratio(ratio: Contrast | None) -> str:
    """`1.06 (1.01 … 1.12)`."""
    if ratio is None:
        return NOT_AVAILABLE
    return f"{ratio.ratio:.2f}" + (
        f" ({ratio.low:.2f} … {ratio.high:.2f})" if ratio.low is not None else f" (n={ratio.rounds})"
    )


def show_difference(difference: Estimate | None, *, scale: float = 1e3) -> str:
    """`12.3 (4.5 … 20.1)`, in milliseconds, or in the unit of another `scale` of seconds."""
    if difference is None:
        return NOT_AVAILABLE
    has_ends = difference.low is not None and difference.high is not None
    ends = f" ({scale * difference.low:.1f} … {scale * difference.high:.1f})" if has_ends else f" (n={difference.n})"
    return f"{scale * difference.centre:.1f}{ends}"


def _merge(launches: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """A row per repeat that both have."""
    return launches[["repeat", STEP]].merge(base[["repeat", STEP]], on="repeat", suffixes=("", "_base"))
