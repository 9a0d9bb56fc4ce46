"""The topic "Convergence"."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.convergence.plot import plot_convergence
from hvbench.analysis.topics.convergence.sentences import describe_convergence
from hvbench.analysis.topics.convergence.table import convergence_table
from hvbench.analysis.topics.topic import Need, Topic, always


def convergence_tables(run: Run) -> list[Table]:
    """The one table, which a run without launches has too."""
    return [convergence_table(run)]


def was_evaluated(run: Run) -> bool:
    """Whether any launch was asked to evaluate on validation data."""
    return any(record.measure.evaluate_every for record in run.records)


TOPIC = Topic(
    name="Convergence",
    question="How far does the loss fall, and do the frameworks learn equally well?",
    needs=Need(words="nothing", is_met=always),
    tables=convergence_tables,
    plots=plot_convergence,
    sentences=describe_convergence,
    precedence=10,
    answers=was_evaluated,
    is_in_terminal=was_evaluated,
)
