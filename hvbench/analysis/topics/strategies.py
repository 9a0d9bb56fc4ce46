"""The table "Ways to exchange gradients": every strategy against Horovod, and against ranks that exchange nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row, format_number, show_value
from hvbench.analysis.show.effects import describe_price
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table, describe_constants, describe_lost, head_axes
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.analysis.topics.paired_steps import (
    find_launches,
    show_difference,
    show_ends,
    show_ratio,
    spread_columns,
    step_difference,
    step_ratios,
)
from hvbench.analysis.topics.questions import asks_about, was_launched_once
from hvbench.analysis.topics.scaling.efficiency import OF_MANY_RANKS
from hvbench.analysis.topics.throughput.pairs import by_framework, measured_rows
from hvbench.analysis.topics.throughput.sentences import describe_lead, describe_rivals, find_best
from hvbench.analysis.topics.topic import Need, Topic, never
from hvbench.records.record import Record
from hvbench.registry import describe_framework

NAME = "strategies"
BASE, ALONE = "horovod", "local"
SERVED_HEADER = ("mean staleness", "most")
SERVED_NOTE = (
    "Staleness, of parameter servers: updates by other ranks' gradients since a rank pulled the parameters that its own gradient is of; mean and most "
    "of all timed steps. What ranks wait for the servers is in the table of stragglers."
)


def select_measured(run: Run) -> pd.DataFrame:
    """The launches whose steps were measured."""
    points = run.points
    return points[(points["status"] == "ok") & points[STEP].notna()]


def compares_strategies(run: Run) -> bool:
    """Whether launches of more than one strategy were measured."""
    return select_measured(run)["strategy"].nunique() > 1


def strategy_tables(run: Run) -> list[Table]:
    """The table of `strategy_table`, where any strategy was run beside Horovod's."""
    table = strategy_table(run)
    return [table] if table.cells else []


def strategy_table(run: Run) -> Table:
    """One row per point whose strategy was run beside Horovod's, all else equal."""
    points, good = run.points, select_measured(run)
    varying = [name for name in run.other_axes if name != "strategy"]
    bases = {
        str(point_id): find_launches(good, launches.iloc[0].to_dict(), changed={"strategy": BASE})
        for point_id, launches in good.groupby("point_id", sort=False)
    }
    base_ids = {point_id: str(base["point_id"].iloc[0]) for point_id, base in bases.items() if len(base)}
    ratios = step_ratios(run, {one: (one, other) for one, other in base_ids.items() if one != other})
    served = read_servers(run)
    rows, data = [], []
    for point_id, launches in good.groupby("point_id", sort=False):
        if point_id not in base_ids:
            continue
        point = {name: launches[name].iloc[0] for name in AXES}
        alone = find_launches(
            good, point, changed={"strategy": ALONE}, free=OF_MANY_RANKS
        )  # which has none of Horovod's choices
        ratio = ratios.get(str(point_id))
        cost = step_difference(launches, alone) if point["strategy"] != ALONE else None
        step = estimate_rate(launches[STEP].astype(float).tolist())
        rows.append(
            [
                str(point["framework"]), describe_strategy(point), *(show_value(point[name]) for name in varying), str(step.n),
                format_number(1e3 * step.centre, decimals=1), show_ends(step, scale=1e3), show_ratio(ratio), show_difference(cost),
                *(show_served(served.get(str(point_id))) if served else ()),
            ]
        )  # fmt: skip
        data.append(
            {**point, "launches_ok": step.n}
            | spread_columns(STEP, step.centre, step.low, step.high)
            | spread_columns("step_ratio_to_horovod", *((ratio.ratio, ratio.low, ratio.high) if ratio else ()))
            | spread_columns("exchange_seconds", *((cost.centre, cost.low, cost.high) if cost else ()))
            | (vars(served[str(point_id)]) if str(point_id) in served else {})
        )
    return Table(
        name="strategies",
        title="Ways to exchange gradients",
        constants=describe_constants(points, without=("framework",)),
        notes=(
            f"Steps: geometric mean of the launches' medians. Against Horovod's: ratio of step times, below 1 is faster than Horovod; "
            f"round by round, {INTERVAL} in brackets, corrected for all rows. Exchanging costs: what a step "
            "takes longer than one of ranks that exchange nothing (local), mean of the pairs' differences, interval likewise.",
            *([SERVED_NOTE] if served else []),
            *describe_lost(points),
        ),
        data=pd.DataFrame(data),
        header=(
            "framework", "strategy", *head_axes(varying), "n", "step median (ms)", f"{INTERVAL} (ms)", "against Horovod's", "exchanging costs (ms)",
            *(SERVED_HEADER if served else ()),
        ),
        is_number=(False, False, *(False for _ in varying), *[True] * (5 + len(SERVED_HEADER) * bool(served))),
        is_brief=(True,) * (7 + len(varying)) + (False,) * (len(SERVED_HEADER) * bool(served)),
        cells=rows,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Served:
    """How stale the gradients of a point's timed steps were, over all ranks and launches."""

    staleness_mean: float
    staleness_max: float


def read_servers(run: Run) -> dict[str, Served]:
    """Point id -> staleness, of the points whose launches recorded them."""
    launches: dict[str, list[Record]] = {}
    for record in run.records:
        if record.is_measured and all(rank.staleness for rank in record.ranks):
            launches.setdefault(record.point_id, []).append(record)
    return {point_id: summarize_servers(records) for point_id, records in launches.items()}


def summarize_servers(records: Sequence[Record]) -> Served:
    """Staleness over the timed steps of some launches of one point."""
    ranks = [(record.warmup_steps, rank) for record in records for rank in record.ranks]
    stale = [value for first, rank in ranks for value in rank.staleness[first:]]
    return Served(staleness_mean=mean(stale), staleness_max=max(stale))


def show_served(served: Served | None) -> list[str]:
    """The cells of SERVED_HEADER."""
    if served is None:
        return ["–"] * len(SERVED_HEADER)
    return [f"{served.staleness_mean:.2f}", f"{served.staleness_max:.0f}"]


def describe_strategy(point: Row) -> str:
    """`native (DistributedDataParallel)`."""
    strategy, called = str(point["strategy"]), describe_framework(str(point["framework"])).native_strategy
    return f"native ({called})" if strategy == "native" and called else strategy


def describe_strategies(run: Run) -> list[Sentence]:
    """Which strategy exchanges gradients fastest in each framework, where nothing else varies."""
    if run.other_axes != ["strategy"] or was_launched_once(run) or run.was_evaluated:
        return []
    draft, parts, prices = Draft(), [], []
    is_open = True
    for name, rows in by_framework([row for row in measured_rows(run) if row["strategy"] != ALONE]).items():
        if len(rows) < 2:
            continue
        best = find_best(run, rows)
        where = f"in {STYLES[name].label} {draft.label(describe_strategy(best.row))}"
        if best.is_proven:
            text = f"exchanges gradients fastest: {describe_lead(draft, best, name=describe_strategy)}"
        else:
            text = f"has the highest rate: {describe_rivals(draft, best, name=describe_strategy)}"
        parts.append(f"{where} {text}")
        is_open = is_open and not best.called(Call.FASTER)
        prices += [best.family] if best.called(Call.OPEN) else []
    price = describe_price(run, prices[0]) if prices else None
    return [draft.finish(NAME, f"{'; '.join(parts)}.", is_open=is_open, price=price)] if parts else []


def asks_about_strategies(run: Run) -> bool:
    """Whether the question is which strategy is the fastest."""
    return asks_about(run, "strategy") and run.other_axes == ["strategy"]


TOPIC = Topic(
    name="Strategies",
    question="Which way of exchanging gradients is fastest, and what does the exchange cost?",
    needs=Need(words="launches of several strategies", is_met=compares_strategies),
    tables=strategy_tables,
    sentences=describe_strategies,
    precedence=34,
    answers=asks_about_strategies,
    is_in_terminal=never,
)
