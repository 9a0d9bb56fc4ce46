"""The topic "Exchange": what each way to exchange gradients sends, beside its step time, its memory and how far it gets."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_percent, show_estimate, show_interval
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.adaptation.front import EXCHANGE, LOSS, PEAK, WIRE, learned_rows
from hvbench.analysis.topics.adaptation.plot import plot_ways
from hvbench.analysis.topics.adaptation.sentences import describe_ways
from hvbench.analysis.topics.adaptation.table import BEATEN, beaten_column
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.bandwidth import show_interval as show_span
from hvbench.analysis.topics.links.model import Span, machine_models_of
from hvbench.analysis.topics.links.sentences import describe_machine_break_evens
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

    models = machine_models_of(run)

    def break_even(row: Row) -> Span | None:
        found = [model for model in models if row["compression"] != "none" and model.holds(row)]
        return found[0].break_even_span(str(row["compression"])) if found else None

    def show_break_even(row: Row) -> str:
        span = break_even(row)
        return NOT_AVAILABLE if span is None else show_bandwidth(span.centre)

    def show_its_interval(row: Row) -> str:
        span = break_even(row)
        return NOT_AVAILABLE if span is None or span.low == span.high else show_span(span)

    columns = [
        Shown("sent per step and rank (KiB)", show_estimate(WIRE, scale=2**-10, decimals=1), is_brief=True),
        Shown("of the gradients (%)", show_share, is_brief=True),
        Shown("step (ms)", show_estimate("step_seconds_median", scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval("step_seconds_median", scale=1e3), metric="step_seconds_median"),
        Shown("shorter than uncompressed below", show_break_even, is_brief=True),
        Shown(f"{INTERVAL} ", show_its_interval),
        Shown("peak (MiB)", show_estimate(PEAK, scale=2**-20, decimals=0)),
        Shown("validation loss at the end", show_estimate(LOSS), is_brief=True),
        Shown(INTERVAL, show_interval(LOSS), metric=LOSS),
        beaten_column(run),
    ]
    of_break_evens = (
        "Shorter than uncompressed below: the bandwidth of every link at which its step is as long as the uncompressed one, where both are those of one "
        "machine and the time in which the bytes cross that link: 8 x bytes / bandwidth, of which nothing is hidden beside other work. "
        "The interval is that of the steps (Student's t; Fieller's for the ratio).",
    )
    notes = (
        "Sent is what a rank hands to Horovod in a step, indices and scales included; of float32 gradients all of them. What topk sends is gathered by "
        "all, and crosses each link once for every other rank; of the others 2 (n - 1) / n crosses it. Of onebit it is what the "
        "steps behind its onebit_warmup_steps send, which are timed; those before are uncompressed.",
        *(of_break_evens if models else ()),
        BEATEN,
    )
    metrics = [WIRE, "trained_parameters", PEAK, "step_seconds_median", LOSS]
    layout = Layout(name="exchange", title="Ways to exchange", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def describe_exchange(run: Run) -> list[Sentence]:
    """From which links on each compression makes a step shorter; then the Pareto front, and what is sent."""
    return [*describe_machine_break_evens(run), *describe_ways(run, EXCHANGE)]


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
    sentences=describe_exchange,
    precedence=5,
    answers=asks_about_exchange,
    is_in_terminal=asks_about_exchange,
)
