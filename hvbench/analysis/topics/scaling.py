"""Scaling efficiency: what each further rank brings, against two named baselines.

    weak    (R_n / n) / R_1 at a fixed batch per rank       (R: tokens per second over all ranks)
    strong  T_1 / (n T_n)   at a fixed global batch         (T: seconds per step)

With equal tokens per step T_1 / T_n = R_n / R_1, so both are the ratio of tokens per second *per rank*; they differ in
which points are put beside each other. The baselines are one process without Horovod, and two ranks, the smallest
world that communicates. Launches are paired by repeat, since repeats are spread over the sweep and a machine that
drifts moves both alike; centre and interval are over the logarithms of the pairs' ratios.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES, order_values, varying_axes
from hvbench.analysis.show.tables import HEADERS, INTERVAL, Table, describe_constants, format_number, show_value
from hvbench.analysis.stats.estimates import Estimate, estimate_rate
from hvbench.spec.exchange import ExchangePart
from hvbench.spec.knob import parts_of
from hvbench.spec.point import Point

BASELINES = {1: "1 process without Horovod", 2: "2 ranks, the smallest world that communicates"}
BATCH = ("micro_batch_size", "gradient_accumulation_steps")
FIXED = {"weak": "batch per rank", "strong": "global batch"}

# What says how ranks exchange gradients: a process alone has none of it.
OF_MANY_RANKS = ("compression", *parts_of(Point)[ExchangePart])


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Of one point against one baseline: 1 means that each further rank brings as much as the baseline's ranks."""

    point: dict[str, Any]  # its axes
    kind: str  # weak or strong
    baseline_world_size: int
    estimate: Estimate


def scaling_efficiencies(points: pd.DataFrame) -> list[Efficiency]:
    """Every point of more ranks than a baseline against that baseline's point, weak first; none without pairs."""
    good = points[(points["status"] == "ok") & points["world_size"].notna()]
    if good["world_size"].nunique() < 2:
        return []
    launches = {point_id: group for point_id, group in good.groupby("point_id", sort=False)}
    axes = good.drop_duplicates("point_id").set_index("point_id")[list(AXES)].to_dict("index")
    found = []
    for kind in FIXED:
        for baseline in BASELINES:
            for point_id, point in axes.items():
                base_id = _find_base(point, axes, kind=kind, baseline=baseline)
                if base_id is None:
                    continue
                ratios = pair_ratios(launches[point_id], launches[base_id])
                if ratios:
                    estimate = estimate_rate(ratios)
                    found.append(Efficiency(point=point, kind=kind, baseline_world_size=baseline, estimate=estimate))
    return found


def pair_ratios(launches: pd.DataFrame, base: pd.DataFrame) -> list[float]:
    """Tokens per second per rank of `launches` / that of the launch of `base` with the same repeat."""
    name = "tokens_per_second_per_rank"
    pairs = launches[["repeat", name]].merge(base[["repeat", name]], on="repeat", suffixes=("", "_base"))
    return [float(ratio) for ratio in pairs[name] / pairs[f"{name}_base"]]


def scaling_table(points: pd.DataFrame) -> Table | None:
    """One row per point, kind and baseline, with n pairs of launches and the interval; None where nothing scales."""
    efficiencies = scaling_efficiencies(points)
    if not efficiencies:
        return None
    varying = [name for name in varying_axes(points) if name not in ("framework", "world_size")]
    efficiencies.sort(key=lambda one: _place(one, points, [*varying, "world_size"]))
    rows = list(_describe_rows(efficiencies, varying))
    axes = [*varying, "world_size"]
    labels = (HEADERS.get(name, name) for name in axes)
    header = ["framework", "fixed", "baseline", *labels, "n", "efficiency (%)", INTERVAL]
    numeric = [pd.api.types.is_numeric_dtype(points[name]) for name in axes]
    return Table(
        name="scaling",
        title="Scaling efficiency",
        constants={name: value for name, value in describe_constants(points).items() if name != "framework"},
        notes=(
            "Tokens per second per rank / that of the baseline; 100 % means that each further rank brings as much as the "
            "baseline's. n counts pairs of launches of the same repeat; centre and interval are over the logarithms of "
            "their ratios. Fixed batch per rank is weak scaling, fixed global batch strong scaling. Every rank has the "
            "same threads in all of them: its share of the host's cores among all ranks launched.",
        ),
        data=pd.DataFrame(
            {
                **{name: [one.point[name] for one in efficiencies] for name in AXES},
                "kind": [one.kind for one in efficiencies],
                "baseline_world_size": [one.baseline_world_size for one in efficiencies],
                "pairs": [one.estimate.n for one in efficiencies],
                "efficiency": [one.estimate.centre for one in efficiencies],
                "efficiency_low": [one.estimate.low for one in efficiencies],
                "efficiency_high": [one.estimate.high for one in efficiencies],
            }
        ),
        header=tuple(header),
        is_number=(False, False, False, *numeric, True, True, True),
        is_brief=(True,) * len(header),
        cells=rows,
    )


def _describe_rows(efficiencies: list[Efficiency], varying: list[str]) -> Iterator[list[str]]:
    for one in efficiencies:
        low, high = one.estimate.low, one.estimate.high
        yield [
            one.point["framework"],
            FIXED[one.kind],
            BASELINES[one.baseline_world_size],
            *(show_value(one.point[name]) for name in [*varying, "world_size"]),
            str(one.estimate.n),
            format_number(100 * one.estimate.centre, decimals=1),
            f"n={one.estimate.n}" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}",
        ]


def _find_base(point: dict[str, Any], axes: dict[str, dict[str, Any]], *, kind: str, baseline: int) -> str | None:
    """The point of `baseline` ranks that differs in nothing else, or by the batch that keeps the global one."""
    if point["world_size"] <= baseline:
        return None
    free = {"world_size", *(BATCH if kind == "strong" else ()), *(OF_MANY_RANKS if baseline == 1 else ())}

    def is_base(other: dict[str, Any]) -> bool:
        if other["world_size"] != baseline or (kind == "strong" and _global_batch(other) != _global_batch(point)):
            return False
        pairs = ((other[name], point[name]) for name in AXES if name not in free)
        return all(
            (pd.isna(one) and pd.isna(two)) if pd.isna(one) or pd.isna(two) else one == two for one, two in pairs
        )

    bases = [point_id for point_id, other in axes.items() if is_base(other)]
    # One rank has no all-reduce to choose anything of. Of several global batches, the one that accumulates as often comes first.
    return min(bases, key=lambda base: tuple(axes[base][name] != point[name] for name in reversed(BATCH)), default=None)


def _global_batch(point: dict[str, Any]) -> int:
    return point["micro_batch_size"] * point["gradient_accumulation_steps"] * point["world_size"]


def _place(one: Efficiency, points: pd.DataFrame, names: list[str]) -> tuple:
    """Where the table has it: by framework, kind and baseline, then along the axes `names`."""

    def order(name: str) -> int:
        value = one.point[name]
        return order_values(name, points[name]).index(None if pd.isna(value) else value)

    return (order("framework"), list(FIXED).index(one.kind), one.baseline_world_size, *map(order, names))
