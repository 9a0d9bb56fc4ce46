"""The table "Idle time of the ranks": what each works in a step, and how long it waits for slower ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.show.cells import INTERVAL, format_number, format_percent
from hvbench.analysis.show.record_table import Column, RecordLayout, tabulate_records
from hvbench.analysis.show.tables import Table
from hvbench.analysis.stats.estimates import Estimate, estimate_mean
from hvbench.analysis.topics.stragglers.work import RankWork, measure_ranks, records_waits
from hvbench.records.record import Record

MOST_RANKS = 8  # that it shows; of more those whose own work takes longest and shortest


def show_ranks(same: Sequence[Record]) -> list[tuple[dict[str, Any], list[str]]]:
    """Raw values and cells of a point: a row a rank, over its launches."""
    works = [measure_ranks(make_samples(record)) for record in same]
    rows = []
    for rank in choose_ranks(works):
        own, idle, share = (
            estimate_mean([getattr(launch[rank], name) for launch in works])
            for name in ("own_seconds", "idle_seconds", "idle_share")
        )
        last = float(np.mean([launch[rank].last_share for launch in works]))
        host = next(one.host for one in same[0].ranks if one.rank == rank)
        values = {
            "rank": rank, "host": host, "n": len(works), "own_seconds": own.centre, "idle_seconds": idle.centre,
            "idle_seconds_low": idle.low, "idle_seconds_high": idle.high, "idle_share": share.centre, "last_share": last,
        }  # fmt: skip
        cells = [
            str(rank), host, str(len(works)), show_milliseconds(own.centre), show_milliseconds(idle.centre), show_ends(idle),
            format_percent(share.centre), format_percent(last),
        ]  # fmt: skip
        rows.append((values, cells))
    return rows


def choose_ranks(works: Sequence[Sequence[RankWork]]) -> list[int]:
    """The ranks that a table shows: all of few, else as many of those whose own work takes longest and shortest."""
    ranks = range(len(works[0])) if works else range(0)
    if len(ranks) <= MOST_RANKS:
        return list(ranks)
    ordered = sorted(ranks, key=lambda rank: -sum(launch[rank].own_seconds for launch in works))
    return sorted(ordered[: MOST_RANKS // 2] + ordered[-MOST_RANKS // 2 :])


def show_milliseconds(seconds: float) -> str:
    """`12.3`."""
    return format_number(1e3 * seconds, decimals=1)


def show_ends(estimate: Estimate) -> str:
    """`1.2 to 3.4`, in milliseconds, or how many launches are too few."""
    if estimate.low is None or estimate.high is None:
        return f"n={estimate.n}"
    return f"{show_milliseconds(max(0.0, estimate.low))} to {show_milliseconds(estimate.high)}"


LAYOUT = RecordLayout(
    name="stragglers",
    title="Idle time of the ranks",
    notes=(
        "Means over the timed steps of n launches. Own work: a step without the wait from the rank's last own gradient to the averages over the "
        "ranks. Idle: what it waits longer than the rank that waits least, which came last; the exchange itself, which all wait for, is in "
        f"neither. {INTERVAL} of the mean of the launches. Last: share of the steps with an exchange in which no rank came later. Of more than "
        f"{MOST_RANKS} ranks those whose own work takes longest and shortest.",
    ),
    columns=(
        Column(header="rank"),
        Column(header="host", is_number=False),
        Column(header="n"),
        Column(header="own work (ms)"),
        Column(header="idle (ms)"),
        Column(header=f"{INTERVAL} (ms)"),
        Column(header="idle (% of the step)"),
        Column(header="last (% of the steps)"),
    ),
    is_wanted=records_waits,
    fill=show_ranks,
)


def idle_table(run: Run) -> Table:
    """A row per point and rank: what it works, and how long it stands idle."""
    return tabulate_records(run, LAYOUT)
