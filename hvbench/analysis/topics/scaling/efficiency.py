"""Scaling efficiency: what each further rank brings, against two named baselines.

    weak    (R_n / n) / R_1 at a fixed batch per rank       (R: tokens per second over all ranks)
    strong  T_1 / (n T_n)   at a fixed global batch         (T: seconds per step)

With equal tokens per step T_1 / T_n = R_n / R_1, so both are the ratio of tokens per second *per rank*; they differ in
which points are put beside each other. The baselines are one process without Horovod, and two ranks, the smallest
world that communicates. Launches are paired by repeat, since repeats are spread over the sweep and a machine that
drifts moves both the same; centre and interval are over the logarithms of the pairs' ratios.

Ideal is an efficiency of 1, which no program can reach on cores that share what multiplies. So beside it stands what was
attainable: with S_n, the matrix products of n ranks at once over those of rank 0 alone, S_n / n against one process, and
(S_n / n) / (S_2 / 2) against two ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES, GLOBAL_BATCH, OWN_BATCH
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.estimates import Estimate, estimate_rate
from hvbench.registry import SCRIPT
from hvbench.spec.exchange import ExchangePart

BASELINES = {1: "1 process without Horovod", 2: "2 ranks, the smallest world that communicates"}
FIXED = {"weak": "batch per rank", "strong": "global batch"}

# What says how ranks exchange gradients: a process alone has none of it.
OF_MANY_RANKS = ("compression", *ExchangePart.model_fields)


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Of one point against one baseline: 1 means that each further rank brings as much as the baseline's ranks."""

    point: dict[str, Any]  # its axes
    kind: str  # weak or strong
    baseline_world_size: int
    estimate: Estimate
    attainable: Estimate | None = None  # of the matrix products alone; None unless every pair measured it
    of_attainable: Estimate | None = None  # the efficiency over that, pair by pair


def efficiencies_of(run: Run) -> list[Efficiency]:
    """`scaling_efficiencies` of a run, computed once."""
    return run.derive(_find_efficiencies)


def _find_efficiencies(run: Run) -> list[Efficiency]:
    return scaling_efficiencies(run.points)


def scaling_efficiencies(points: pd.DataFrame) -> list[Efficiency]:
    """Every point of more ranks than a baseline against that baseline's point, weak first; none without pairs.

    None of scripts: whether their batch is a rank's or that of all ranks nobody says.
    """
    good = points[(points["status"] == "ok") & points["world_size"].notna() & (points["framework"] != SCRIPT)]
    if good["world_size"].nunique() < 2:
        return []
    launches = {point_id: group for point_id, group in good.groupby("point_id", sort=False)}
    axes = good.drop_duplicates("point_id").set_index("point_id")[list(AXES)].to_dict("index")
    found = []
    for kind in FIXED:
        for baseline in BASELINES:
            bases = group_bases(axes, kind=kind, baseline=baseline)
            for point_id, point in axes.items():
                base_id = find_base(point, axes, bases=bases, kind=kind, baseline=baseline)
                if base_id is None:
                    continue
                pairs = pair_launches(launches[point_id], launches[base_id])
                if not pairs.empty:
                    estimates = _estimate(pairs)
                    found.append(Efficiency(point=point, kind=kind, baseline_world_size=baseline, **estimates))
    return found


def pair_launches(launches: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """A row for each launch of `launches` and that of `base` with the same repeat: efficiency, and what was attainable."""
    names = ["repeat", "world_size", "tokens_per_second_per_rank", "ranks_together_ratio"]
    pairs = launches[names].merge(base[names], on="repeat", suffixes=("", "_base"))
    shares = []
    for side in ("", "_base"):
        ranks = pairs[f"world_size{side}"].astype("float64")
        shares.append((pairs[f"ranks_together_ratio{side}"] / ranks).where(ranks > 1, 1.0))
    efficiency = pairs["tokens_per_second_per_rank"] / pairs["tokens_per_second_per_rank_base"]
    return pd.DataFrame({"efficiency": efficiency, "attainable": shares[0] / shares[1]})


def _estimate(pairs: pd.DataFrame) -> dict[str, Estimate]:
    """The estimates of an `Efficiency` from its pairs."""
    found = {"estimate": estimate_rate(pairs["efficiency"].to_list())}
    if pairs["attainable"].notna().all():
        found["attainable"] = estimate_rate(pairs["attainable"].to_list())
        found["of_attainable"] = estimate_rate((pairs["efficiency"] / pairs["attainable"]).to_list())
    return found


def group_bases(axes: dict[str, dict[str, Any]], *, kind: str, baseline: int) -> dict[tuple, list[str]]:
    """What a point has in common with its baseline -> the points of `baseline` ranks that have it."""
    found: dict[tuple, list[str]] = {}
    for point_id, point in axes.items():
        if point["world_size"] == baseline:
            found.setdefault(_shared_with_base(point, kind=kind, baseline=baseline), []).append(point_id)
    return found


def _shared_with_base(point: dict[str, Any], *, kind: str, baseline: int) -> tuple:
    """All axes but the ranks and what one rank alone has no choice of; the global batch in place of its parts if that is fixed."""
    free = {"world_size", *(OWN_BATCH if kind == "strong" else ()), *(OF_MANY_RANKS if baseline == 1 else ())}
    kept = [None if pd.isna(point[name]) else point[name] for name in AXES if name not in free]
    return (*kept, global_batch(point) if kind == "strong" else None)


def find_base(
    point: dict[str, Any], axes: dict[str, dict[str, Any]], *, bases: dict[tuple, list[str]], kind: str, baseline: int
) -> str | None:
    """The point of `baseline` ranks that differs in nothing else, or by the batch that keeps the global one."""
    if point["world_size"] <= baseline:
        return None
    found = bases.get(_shared_with_base(point, kind=kind, baseline=baseline), [])
    # One rank has no all-reduce to choose anything of. Of several global batches, the one that accumulates as often comes first.
    return min(
        found, key=lambda base: tuple(axes[base][name] != point[name] for name in reversed(OWN_BATCH)), default=None
    )


def global_batch(point: dict[str, Any]) -> int:
    """Samples of a step over all ranks."""
    return math.prod(int(point[name]) for name in GLOBAL_BATCH)
