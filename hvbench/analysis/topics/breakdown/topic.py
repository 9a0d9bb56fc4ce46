"""The topic "Breakdown"."""

from __future__ import annotations

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.breakdown.plot import plot_breakdown
from hvbench.analysis.topics.breakdown.sentences import describe_breakdown
from hvbench.analysis.topics.breakdown.table import breakdown_table
from hvbench.analysis.topics.growth import asks_for_growth
from hvbench.analysis.topics.topic import Need, Topic


def has_breakdown(run: Run) -> bool:
    """Whether any launch has ablations."""
    return bool(run.points["parts_seconds"].notna().any())


def breakdown_tables(run: Run) -> list[Table]:
    """The one table."""
    return [breakdown_table(run)]


def breakdown_plots(run: Run) -> dict[str, Figure]:
    """The one plot."""
    return {"breakdown": plot_breakdown(run)}


def asks_where_time_goes(run: Run) -> bool:
    """Whether the question is where the time goes: it was measured, and is no means to tell what accumulation saves."""
    return not run.was_evaluated and not asks_for_growth(run)


TOPIC = Topic(
    name="Breakdown",
    question="Where does the time of a step go?",
    needs=Need(words="launches with rounds of ablation (ablation_rounds)", is_met=has_breakdown),
    tables=breakdown_tables,
    plots=breakdown_plots,
    sentences=describe_breakdown,
    precedence=30,
    answers=asks_where_time_goes,
)
