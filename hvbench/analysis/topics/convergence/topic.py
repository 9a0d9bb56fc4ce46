"""The topic "Convergence"."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.convergence.choices import describe_choices
from hvbench.analysis.topics.convergence.contrast_plot import draw_contrasts
from hvbench.analysis.topics.convergence.contrast_table import contrast_tables
from hvbench.analysis.topics.convergence.costs import describe_costs
from hvbench.analysis.topics.convergence.plot import plot_convergence
from hvbench.analysis.topics.convergence.sentences import describe_convergence
from hvbench.analysis.topics.convergence.table import convergence_table
from hvbench.analysis.topics.convergence.twins import describe_levels, describe_twins, is_about_frameworks
from hvbench.analysis.topics.topic import Need, Topic, always


def convergence_tables(run: Run) -> list[Table]:
    """What was learned, where it was evaluated, and the losses of every point, which a run without launches has too."""
    if run.is_of_scripts and not logged_losses(run):
        return []
    return [*contrast_tables(run), convergence_table(run)]


def logged_losses(run: Run) -> bool:
    """Whether any launch has a loss; a script need not log any."""
    points = run.points
    return bool(points[["final_loss", "evaluated_steps", "target"]].notna().any(axis=None))


def was_evaluated(run: Run) -> bool:
    """Whether any launch was asked to evaluate on validation data."""
    return any(record.measure.evaluate_every for record in run.records)


def describe_learning(run: Run) -> list[Sentence]:
    """What was learned: the axes or the frameworks first, whichever the question compares, then who reached the target."""
    choices, twins = [*describe_choices(run), *describe_costs(run)], describe_twins(run)
    twins += describe_levels(run)
    first = [*twins, *choices] if is_about_frameworks(run) else [*choices, *twins]
    return [*first, *describe_convergence(run)]


TOPIC = Topic(
    name="Convergence",
    question="How far does the loss fall, and do the frameworks learn equally well?",
    needs=Need(words="nothing", is_met=always),
    tables=convergence_tables,
    contrasts=draw_contrasts,
    plots=plot_convergence,
    sentences=describe_learning,
    precedence=10,
    answers=was_evaluated,
    is_in_terminal=was_evaluated,
    question_of_scripts="How far does the loss fall?",
)
