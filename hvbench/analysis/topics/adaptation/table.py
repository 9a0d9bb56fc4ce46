"""What each way to adapt a model trains, sends and keeps, beside its step time, its memory and how far it gets."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_percent, show_estimate, show_interval
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.adaptation.front import LOSS, NOT_WORSE, PEAK, WIRE, find_fronts, name_way
from hvbench.analysis.topics.questions import was_launched_once

PLAIN = ("trained_parameters", WIRE, "optimizer_state_bytes", PEAK)

BEATEN = (
    "Beaten: another point of that framework and link is shown to be better in validation loss, step time, peak memory or bytes sent, and "
    f"is worse by at most {NOT_WORSE} % in each of them. Those that nothing beats are the Pareto front."
)  # what the column of `beaten_column` says, for a table's notes


def beaten_column(run: Run) -> Shown:
    """The point that beats each; nothing of those on the front, nor where every point was launched once."""
    fronts = [] if was_launched_once(run) else find_fronts(run)
    beaten = {str(row["point_id"]): by for front in fronts for row, by in front.beaten}

    def show(row: Row) -> str:
        by = beaten.get(str(row["point_id"]))
        return NOT_AVAILABLE if by is None else name_way(run, by)

    return Shown("beaten by", show, is_number=False, is_brief=True)


def adaptation_table(run: Run) -> Table:
    """One row per point: what trains, what that costs, where it ends, and what beats it."""

    def show_share(row: Row) -> str:
        share = row["trained_parameters_share"]
        return NOT_AVAILABLE if pd.isna(share) else format_percent(share)

    columns = [
        Shown("trained parameters", show_estimate("trained_parameters", decimals=0), is_brief=True),
        Shown("of all (%)", show_share, is_brief=True),
        Shown("sent per step and rank (KiB)", show_estimate(WIRE, scale=2**-10, decimals=1)),
        Shown("optimizer state (KiB)", show_estimate("optimizer_state_bytes", scale=2**-10, decimals=1)),
        Shown("step (ms)", show_estimate("step_seconds_median", scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval("step_seconds_median", scale=1e3), metric="step_seconds_median"),
        Shown("peak (MiB)", show_estimate(PEAK, scale=2**-20, decimals=0)),
        Shown("validation loss at the end", show_estimate(LOSS), is_brief=True),
        Shown(INTERVAL, show_interval(LOSS), metric=LOSS),
        beaten_column(run),
    ]
    notes = (
        "Parameters that train have gradients, state of the optimizer and a place on the wire; no others do. Sent are the gradients "
        "that a rank hands to the all-reduce, in the wire's format; of one rank none. Optimizer state is computed.",
        BEATEN,
    )
    metrics = [*PLAIN, "trained_parameters_share", "step_seconds_median", LOSS]
    layout = Layout(name="adaptation", title="Ways to adapt", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))
