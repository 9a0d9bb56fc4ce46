"""A run -> what its report consists of, topic by topic: tables and plots of every topic whose needs the run meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.forest import draw_forest
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics import catalogue
from hvbench.analysis.topics.topic import Topic


@dataclass(frozen=True, kw_only=True)
class TopicTables:
    """The tables of one topic, in the order in which they are read."""

    topic: Topic
    tables: Sequence[Table]


@dataclass(frozen=True, kw_only=True)
class TopicFigures:
    """The plots of one topic: file stem -> figure. The contrasts come first, and are named once more."""

    topic: Topic
    figures: Mapping[str, Figure]
    contrasts: Sequence[str] = ()


def topics_of(run: Run) -> list[Topic]:
    """The topics whose needs the run meets, in the order of a report."""
    return [topic for topic in catalogue.TOPICS if topic.needs.is_met(run)]


def tables_by_topic(run: Run) -> list[TopicTables]:
    """Every table that the run has something to say to, computed once."""
    return run.derive(_make_tables)


def list_tables(run: Run) -> list[Table]:
    """The same tables without their topics."""
    return [table for part in tables_by_topic(run) for table in part.tables]


def draw_figures(run: Run) -> list[TopicFigures]:
    """Every plot that the run has something to say to, drawn anew: who shows a figure may change it."""
    return [_draw_topic(run, topic) for topic in topics_of(run)]


def name_answer_plots(run: Run, drawn: Sequence[TopicFigures]) -> tuple[str, ...]:
    """The file stems of the plots that stand beside the answer: the contrasts of the first topic that gives it and has any.

    Where no topic answers the run's question, the first that has any speaks in its place.
    """
    parts = sorted((part for part in drawn if part.contrasts), key=lambda part: part.topic.precedence)
    is_answered = any(topic.answers(run) for topic in topics_of(run))
    return next((tuple(part.contrasts) for part in parts if part.topic.answers(run) or not is_answered), ())


def _draw_topic(run: Run, topic: Topic) -> TopicFigures:
    contrasts = {forest.name: draw_forest(forest) for forest in topic.contrasts(run)}
    return TopicFigures(topic=topic, figures={**contrasts, **topic.plots(run)}, contrasts=tuple(contrasts))


def _make_tables(run: Run) -> list[TopicTables]:
    return [TopicTables(topic=topic, tables=topic.tables(run)) for topic in topics_of(run)]
