"""The table "Scaling efficiency": a row a point, kind of scaling and baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, format_number, show_value
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, describe_lost, head_axes
from hvbench.analysis.stats.estimates import Estimate
from hvbench.analysis.topics.scaling.efficiency import BASELINES, FIXED, Efficiency, efficiencies_of

# Name in the header -> the field of an `Efficiency`.
FIGURES = (("efficiency", "estimate"), ("attainable", "attainable"), ("of attainable", "of_attainable"))


def scaling_table(run: Run) -> Table:
    """One row per point, kind and baseline, with n pairs of launches and the interval."""
    points = run.points
    varying = [name for name in run.other_axes if name != "world_size"]
    axes = [*varying, "world_size"]
    ranks = {
        name: {value: i for i, value in enumerate(order_values(name, points[name]))} for name in ["framework", *axes]
    }
    efficiencies = sorted(efficiencies_of(run), key=lambda one: _place(one, ranks))
    rows = list(_describe_rows(efficiencies, varying))
    figures = [name for head, _ in FIGURES for name in (f"{head} (%)", _head_interval(head))]
    header = ["framework", "fixed", "baseline", *head_axes(axes), "n", *figures]
    return Table(
        name="scaling",
        title="Scaling efficiency",
        constants=describe_constants(points, without=("framework",)),
        notes=(
            "Tokens per second per rank / that of the baseline; 100 % means that each further rank brings as much as the "
            "baseline's. n counts pairs of launches of the same repeat; centre and interval are over the logarithms of "
            "their ratios. Fixed batch per rank is weak scaling, fixed global batch strong scaling. Every rank has the "
            "same threads in all of them: its share of the host's cores among all ranks launched. Attainable: the matrix "
            "products of all ranks at once over as many times those of rank 0 while the others rest, over the same of the "
            "baseline's ranks: what cores that share their multipliers leave of the ideal 100 %. "
            f"{NOT_AVAILABLE}: not measured.",
            *describe_lost(points),
        ),
        data=pd.DataFrame(
            {
                **{name: [one.point[name] for one in efficiencies] for name in AXES},
                "kind": [one.kind for one in efficiencies],
                "baseline_world_size": [one.baseline_world_size for one in efficiencies],
                "pairs": [one.estimate.n for one in efficiencies],
                **{
                    f"{head.replace(' ', '_')}{suffix}": [_value(getattr(one, name), end) for one in efficiencies]
                    for head, name in FIGURES
                    for suffix, end in (("", "centre"), ("_low", "low"), ("_high", "high"))
                },
            }
        ),
        header=tuple(header),
        is_number=(False, False, False, *are_numbers(axes, points), True, *(True for _ in figures)),
        is_brief=(True,) * len(header),
        cells=rows,
    )


def _describe_rows(efficiencies: list[Efficiency], varying: list[str]) -> Iterator[list[str]]:
    for one in efficiencies:
        yield [
            one.point["framework"],
            FIXED[one.kind],
            BASELINES[one.baseline_world_size],
            *(show_value(one.point[name]) for name in [*varying, "world_size"]),
            str(one.estimate.n),
            *(cell for _, name in FIGURES for cell in _show(getattr(one, name))),
        ]


def _show(estimate: Estimate | None) -> tuple[str, str]:
    """An efficiency and its interval in per cent."""
    if estimate is None:
        return NOT_AVAILABLE, NOT_AVAILABLE
    centre, low, high = format_number(100 * estimate.centre, decimals=1), estimate.low, estimate.high
    return centre, f"n={estimate.n}" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _value(estimate: Estimate | None, end: str) -> float | None:
    return getattr(estimate, end) if estimate else None


def _head_interval(head: str) -> str:
    return INTERVAL if head == FIGURES[0][0] else f"{INTERVAL} ({head})"


def _place(one: Efficiency, ranks: dict[str, dict[Any, int]]) -> tuple:
    """Where the table has it: by framework, kind and baseline, then along the other axes. `ranks`: axis -> value -> its place."""
    places = {name: by_value[None if pd.isna(one.point[name]) else one.point[name]] for name, by_value in ranks.items()}
    framework = places.pop("framework")
    return (framework, list(FIXED).index(one.kind), one.baseline_world_size, *places.values())
