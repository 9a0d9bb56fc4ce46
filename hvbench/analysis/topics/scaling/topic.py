"""The topic "Scaling"."""

from __future__ import annotations

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.questions import asks_about
from hvbench.analysis.topics.scaling.efficiency import efficiencies_of
from hvbench.analysis.topics.scaling.plot import plot_scaling
from hvbench.analysis.topics.scaling.sentences import describe_scaling
from hvbench.analysis.topics.scaling.table import scaling_table
from hvbench.analysis.topics.topic import Need, Topic, never


def scales(run: Run) -> bool:
    """Whether any point has a baseline of fewer ranks."""
    return bool(efficiencies_of(run))


def scaling_tables(run: Run) -> list[Table]:
    """The one table."""
    return [scaling_table(run)]


def scaling_plots(run: Run) -> dict[str, Figure]:
    """The one plot."""
    return {"scaling_efficiency": plot_scaling(run)}


def asks_about_ranks(run: Run) -> bool:
    """Whether the question is what further ranks bring."""
    return asks_about(run, "world_size")


TOPIC = Topic(
    name="Scaling",
    question="What does each further rank bring?",
    needs=Need(words="the same configuration on one or two ranks and on more", is_met=scales),
    tables=scaling_tables,
    plots=scaling_plots,
    sentences=describe_scaling,
    precedence=32,
    answers=asks_about_ranks,
    is_in_terminal=never,
)
