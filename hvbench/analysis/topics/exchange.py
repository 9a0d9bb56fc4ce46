"""The topic "Exchange": what each way to exchange gradients sends, beside its step time, its memory and how far it gets."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_percent, show_estimate, show_interval
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.adaptation.front import EXCHANGE, LOSS, PEAK, WIRE, learned_rows
from hvbench.analysis.topics.adaptation.plot import plot_ways
from hvbench.analysis.topics.adaptation.sentences import describe_ways
from hvbench.analysis.topics.adaptation.table import BEATEN, beaten_column
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.spec.compression import COMPRESSIONS

VALUE_BYTES = 4


def sends_less(run: Run) -> bool:
    """Whether launches of more than one compression were measured, and any of them fed back what it did not send."""
    points = run.points
    ways = set(points.loc[points["status"] == "ok", "compression"])
    return len(ways) > 1 and any(COMPRESSIONS[name].feeds_back for name in ways)


def asks_about_exchange(run: Run) -> bool:
    """Whether the question is which way to exchange gets how far at which cost."""
    return run.was_evaluated and "compression" in run.compared_axes and sends_less(run)


def exchange_table(run: Run) -> Table:
    """One row per point: what is sent, what that costs, where it ends, and what beats it."""

    def show_share(row: Row) -> str:
        whole = VALUE_BYTES * row["trained_parameters"]
        return NOT_AVAILABLE if pd.isna(whole) else format_percent(row[WIRE] / whole)

    columns = [
        Shown("sent per step and rank (KiB)", show_estimate(WIRE, scale=2**-10, decimals=1), is_brief=True),
        Shown("of the gradients (%)", show_share, is_brief=True),
        Shown("step (ms)", show_estimate("step_seconds_median", scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval("step_seconds_median", scale=1e3), metric="step_seconds_median"),
        Shown("peak (MiB)", show_estimate(PEAK, scale=2**-20, decimals=0)),
        Shown("validation loss at the end", show_estimate(LOSS), is_brief=True),
        Shown(INTERVAL, show_interval(LOSS), metric=LOSS),
        beaten_column(run),
    ]
    notes = (
        "Sent is what a rank hands to Horovod in a step, indices and scales included; of float32 gradients all of them. What topk sends is gathered by "
        "all, and crosses each link once for every other rank; of the others 2 (n - 1) / n crosses it. Of onebit it is what the "
        "steps behind its onebit_warmup_steps send, which are timed; those before are uncompressed.",
        BEATEN,
    )
    metrics = [WIRE, "trained_parameters", PEAK, "step_seconds_median", LOSS]
    layout = Layout(name="exchange", title="Ways to exchange", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def exchange_tables(run: Run) -> list[Table]:
    """The one table."""
    return [exchange_table(run)]


def exchange_plots(run: Run) -> dict[str, Figure]:
    """The one plot, of runs that were evaluated."""
    return {"exchange_front": plot_ways(run, EXCHANGE)} if learned_rows(run) else {}


TOPIC = Topic(
    name="Exchange",
    question="Which way to exchange gradients takes how long, sends how much, and what does it cost in learning?",
    needs=Need(words="launches of more than one compression, one of them with error feedback", is_met=sends_less),
    tables=exchange_tables,
    plots=exchange_plots,
    sentences=partial(describe_ways, ways=EXCHANGE),
    precedence=5,
    answers=asks_about_exchange,
    is_in_terminal=asks_about_exchange,
)
