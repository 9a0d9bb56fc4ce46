"""A row of a summary -> the text of one cell: numbers, intervals, axis values. Markup is escaped later, where it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import KNOBS, is_own, plain_name
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.estimates import Estimate, read_estimate

Row = Mapping[str, Any]  # of `summarize_launches`


HEADERS = {name: knob.label for name, knob in KNOBS.items() if knob.label}


def head_axis(axis: str) -> str:
    """What heads the column of an axis, and names it where it is listed."""
    return HEADERS.get(axis, plain_name(axis))


INTERVAL = f"{CONFIDENCE * 100:g} % interval"


NOT_AVAILABLE = "–"


ONE_SEED = "one seed"  # in place of an interval of what launches of one seed have in common


SPREAD_NOTE = f"±: half the width of the {INTERVAL}, relative to the value."


def show_value(value: object) -> str:
    """A field of a point, or a setting that somebody wrote into a run's description, as text."""
    if isinstance(value, (list, dict)):
        return str(value)
    if value is None or pd.isna(value):
        return NOT_AVAILABLE
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_axis(axis: str, value: object, *, is_emulated: bool) -> str:
    """A value of one axis as text; a precision that the processor emulates says so, a script gets its switches in lower case."""
    if is_own(axis) and str(value) in ("True", "False"):
        return str(value).lower()
    return f"{show_value(value)} (emulated)" if axis == "precision" and is_emulated else show_value(value)


def format_number(value: float, *, decimals: int | None = None) -> str:
    """`decimals` places, or else four significant digits, and whole numbers from 1,000 on."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if round(abs(value), 1) >= 1000 else f"{value:#.4g}"


def show_estimate(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[Row], str]:
    """Column text: the centre of `metric` over the launches."""

    def text(row: Row) -> str:
        estimate = read_estimate(row, metric)
        return NOT_AVAILABLE if estimate is None else format_number(estimate.centre * scale, decimals=decimals)

    return text


def show_interval(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[Row], str]:
    """Column text: the interval of `metric`, or `n=1` or `one seed` where one launch, or one seed, cannot have any."""

    def text(row: Row) -> str:
        estimate = read_estimate(row, metric)
        if estimate is None:
            return NOT_AVAILABLE
        if estimate.low is None or estimate.high is None:
            return f"n={estimate.n}" if row["launches_ok"] == 1 else ONE_SEED
        return " to ".join(format_number(end * scale, decimals=decimals) for end in (estimate.low, estimate.high))

    return text


def format_percent(share: float) -> str:
    """A share in per cent: two digits, whole numbers from 10 on, and no more than that it is over 1,000."""
    if share > 10:
        return "over 1,000"
    return f"{100 * share:,.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def show_spread(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[Row], str]:
    """Column text: the centre of `metric` over the launches, and how wide its interval is if it has one."""

    def text(row: Row) -> str:
        estimate = read_estimate(row, metric)
        if estimate is None:
            return NOT_AVAILABLE
        spread = format_spread(estimate, scale=scale, decimals=decimals)
        return f"{spread} ({ONE_SEED})" if estimate.n == 1 < row["launches_ok"] else spread

    return text


def format_spread(estimate: Estimate, *, scale: float = 1.0, decimals: int | None = None) -> str:
    """The centre, and how wide the interval is if there is one: `20.0 ± 3 %`."""
    centre = format_number(estimate.centre * scale, decimals=decimals)
    width = estimate.relative_half_width
    return f"{centre} ± {format_percent(width)} %" if math.isfinite(width) else centre
