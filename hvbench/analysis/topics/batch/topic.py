"""The topic "Batch size"."""

from __future__ import annotations

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.batch.critical import describe_critical, has_critical_batch
from hvbench.analysis.topics.batch.plot import plot_tradeoff
from hvbench.analysis.topics.batch.sentences import describe_batches
from hvbench.analysis.topics.batch.table import tradeoff_table
from hvbench.analysis.topics.batch.tradeoff import find_curves
from hvbench.analysis.topics.topic import Need, Topic, has_launches


def batch_tables(run: Run) -> list[Table]:
    """The one table, where a target was set at several batches."""
    return [tradeoff_table(run)] if find_curves(run) else []


def batch_plots(run: Run) -> dict[str, Figure]:
    """The one plot, likewise."""
    return {"critical_batch": plot_tradeoff(run)} if find_curves(run) else {}


def describe(run: Run) -> list[Sentence]:
    """The critical batch, then which choices reach the target with which batches."""
    return [*describe_critical(run), *describe_batches(run)]


TOPIC = Topic(
    name="Batch size",
    question="From which batch on does a larger one save no steps?",
    needs=Need(words="a target loss at three global batches or more", is_met=has_launches),
    tables=batch_tables,
    plots=batch_plots,
    sentences=describe,
    answers=has_critical_batch,
    precedence=8,
)
