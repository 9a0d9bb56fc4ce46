"""The topic "Adaptation"."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.adaptation.front import ADAPT, learned_rows
from hvbench.analysis.topics.adaptation.plot import plot_ways
from hvbench.analysis.topics.adaptation.sentences import describe_ways
from hvbench.analysis.topics.adaptation.table import adaptation_table
from hvbench.analysis.topics.topic import Need, Topic


def compares_adaptations(run: Run) -> bool:
    """Whether launches of more than one adaptation were measured."""
    points = run.points
    return points.loc[points["status"] == "ok", "adaptation"].nunique() > 1


def asks_about_adaptations(run: Run) -> bool:
    """Whether the question is which way to adapt gets how far at which cost."""
    return run.was_evaluated and "adaptation" in run.compared_axes


def adaptation_tables(run: Run) -> list[Table]:
    """The one table."""
    return [adaptation_table(run)]


def adaptation_plots(run: Run) -> dict[str, Figure]:
    """The one plot, of runs that were evaluated."""
    return {"adaptation_front": plot_ways(run, ADAPT)} if learned_rows(run) else {}


TOPIC = Topic(
    name="Adaptation",
    question="Which way to adapt the model gets how far, and what does it train, send and keep?",
    needs=Need(words="launches of more than one adaptation", is_met=compares_adaptations),
    tables=adaptation_tables,
    plots=adaptation_plots,
    sentences=partial(describe_ways, ways=ADAPT),
    precedence=9,
    answers=asks_about_adaptations,
    is_in_terminal=asks_about_adaptations,
)
