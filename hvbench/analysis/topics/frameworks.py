"""The frameworks side by side: a row per configuration that two of them ran, with the ratio and what it allows to say."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from hvbench.analysis.frame.axes import AXES, order_values, varying_axes
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.tables import (
    HEADERS,
    INTERVAL,
    NOT_AVAILABLE,
    SPREAD_NOTE,
    Table,
    describe_constants,
    show_axis,
    show_spread,
)
from hvbench.analysis.stats.estimates import summarize_launches
from hvbench.analysis.topics.findings import Pair, compare_values

RATE = "tokens_per_second"
ENDS = ("", "_low", "_high")

show_rate = show_spread(RATE)

NOTE = (
    "Ratio: of the tokens/s over all launches; its range goes from the least to the most that the two intervals allow. "
    "A framework is called faster only where the intervals do not overlap, that is where the range leaves out 1. n: launches "
    f"of the framework that has fewer. {SPREAD_NOTE}"
)


def framework_table(points: pd.DataFrame) -> Table:
    """One row per configuration and pair of frameworks; empty where there is one framework only."""
    summary = summarize_launches(points)
    axes = [axis for axis in varying_axes(points) if axis != "framework"]
    names = order_values("framework", points["framework"])
    pairs = [pair for other, one in combinations(names, 2) for pair in compare_values(summary, "framework", one, other)]
    rates = [STYLES[name].label for name in names]
    rows = []
    for pair in pairs:
        speeds = {pair.one["framework"]: pair.one, pair.other["framework"]: pair.other}
        is_emulated = bool(pair.one["is_emulated"] or pair.other["is_emulated"])
        cells = [show_axis(axis, pair.one[axis], is_emulated=is_emulated) for axis in axes]
        cells.append(str(count_launches(pair)))
        cells += [show_rate(speeds[name]) if name in speeds else NOT_AVAILABLE for name in names]
        rows.append([*cells, f"{pair.ratio:.2f}", show_range(pair), show_verdict(pair)])
    ratio = f"{rates[1]} / {rates[0]}" if len(rates) == 2 else "ratio"
    allowed = f"{INTERVAL}s allow"
    shown = (*(HEADERS.get(axis, axis) for axis in axes), "n", *(f"{rate} (tokens/s)" for rate in rates))
    header = (*shown, ratio, allowed, "faster")
    is_number = (
        *(pd.api.types.is_numeric_dtype(summary[axis]) for axis in axes),
        True,
        *(True for _ in rates),
        True,
        True,
        False,
    )
    return Table(
        name="frameworks",
        title="Framework comparison",
        constants={axis: value for axis, value in describe_constants(points).items() if axis != "framework"},
        notes=(NOTE,),
        data=_raw(pairs),
        header=header,
        is_number=is_number,
        is_brief=(True,) * len(header),
        cells=rows,
    )


def count_launches(pair: Pair) -> int:
    """Launches of the framework that has fewer."""
    return int(min(pair.one["launches_ok"], pair.other["launches_ok"]))


def show_range(pair: Pair) -> str:
    """`0.87 to 1.12`, or that one launch has none."""
    return "n=1" if pair.low is None or pair.high is None else f"{pair.low:.2f} to {pair.high:.2f}"


def show_verdict(pair: Pair) -> str:
    """Which framework is faster, or why none is named."""
    if pair.low is None:
        return "one launch: not ranked"
    if pair.is_faster or pair.is_slower:
        return STYLES[(pair.one if pair.is_faster else pair.other)["framework"]].label
    return "cannot be told apart"


def _raw(pairs: list[Pair]) -> pd.DataFrame:
    names = [axis for axis in AXES if axis != "framework"]
    rows = [
        {
            **{axis: pair.one[axis] for axis in names},
            "framework": pair.one["framework"],
            "point_id": pair.one["point_id"],
            "launches_ok": count_launches(pair),
            **{f"{RATE}{end}": pair.one[f"{RATE}{end}"] for end in ENDS},
            "other_framework": pair.other["framework"],
            "other_point_id": pair.other["point_id"],
            **{f"other_{RATE}{end}": pair.other[f"{RATE}{end}"] for end in ENDS},
            "ratio": pair.ratio,
            "ratio_low": pair.low,
            "ratio_high": pair.high,
        }
        for pair in pairs
    ]
    figures = [f"{name}{end}" for name in (RATE, f"other_{RATE}", "ratio") for end in ENDS]
    columns = ["framework", "other_framework", *names, "point_id", "other_point_id", "launches_ok", *figures]
    return pd.DataFrame(rows, columns=columns)
