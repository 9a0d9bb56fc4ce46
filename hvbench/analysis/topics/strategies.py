"""The table "Ways to exchange gradients": every strategy against Horovod, and against ranks that exchange nothing."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES, varying_axes
from hvbench.analysis.show.tables import HEADERS, INTERVAL, Table, describe_constants, format_number, show_value
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.analysis.topics.pairing import (
    STEP,
    find_launches,
    show_difference,
    show_ends,
    show_ratio,
    spread_columns,
    step_difference,
    step_ratio,
)
from hvbench.analysis.topics.scaling import OF_MANY_RANKS
from hvbench.registry import describe_framework

BASE, ALONE = "horovod", "local"


def strategy_table(points: pd.DataFrame) -> Table | None:
    """One row per point whose strategy has Horovod's, all else equal, beside it; None where no strategies were compared."""
    good = points[(points["status"] == "ok") & points[STEP].notna()]
    if good["strategy"].nunique() < 2:
        return None
    varying = [name for name in varying_axes(points) if name not in ("framework", "strategy")]
    rows, data = [], []
    for _, launches in good.groupby("point_id", sort=False):
        point = {name: launches[name].iloc[0] for name in AXES}
        base = find_launches(good, point, changed={"strategy": BASE})
        if base.empty:
            continue
        alone = find_launches(
            good, point, changed={"strategy": ALONE}, free=OF_MANY_RANKS
        )  # which has none of Horovod's choices
        ratio = step_ratio(launches, base) if point["strategy"] != BASE else None
        cost = step_difference(launches, alone) if point["strategy"] != ALONE else None
        step = estimate_rate(launches[STEP].astype(float).tolist())
        rows.append(
            [
                str(point["framework"]), describe_strategy(point), *(show_value(point[name]) for name in varying), str(step.n),
                format_number(1e3 * step.centre, decimals=1), show_ends(step, scale=1e3), show_ratio(ratio), show_difference(cost),
            ]
        )  # fmt: skip
        data.append(
            {**point, "launches_ok": step.n}
            | spread_columns(STEP, step.centre, step.low, step.high)
            | spread_columns("step_ratio_to_horovod", *((ratio.ratio, ratio.low, ratio.high) if ratio else ()))
            | spread_columns("exchange_seconds", *((cost.centre, cost.low, cost.high) if cost else ()))
        )
    if not rows:
        return None
    labels = [HEADERS.get(name, name) for name in varying]
    return Table(
        name="strategies",
        title="Ways to exchange gradients",
        constants={name: value for name, value in describe_constants(points).items() if name != "framework"},
        notes=(
            f"Steps: geometric mean of the launches' medians. Against Horovod's: ratio of step times, below 1 is faster than Horovod; "
            f"launches of the same repeat are pairs, {INTERVAL} (paired t on the logarithm) in brackets. Exchanging costs: what a step "
            "takes longer than one of ranks that exchange nothing (local), mean of the pairs' differences, interval likewise.",
        ),
        data=pd.DataFrame(data),
        header=(
            "framework", "strategy", *labels, "n", "step median (ms)", f"{INTERVAL} (ms)", "against Horovod's", "exchanging costs (ms)",
        ),
        is_number=(False, False, *(False for _ in varying), True, True, True, True, True),
        is_brief=(True,) * (7 + len(varying)),
        cells=rows,
    )  # fmt: skip


def describe_strategy(point: dict[str, Any]) -> str:
    """`native (DistributedDataParallel)`."""
    strategy, called = str(point["strategy"]), describe_framework(str(point["framework"])).native_strategy
    return f"native ({called})" if strategy == "native" and called else strategy
