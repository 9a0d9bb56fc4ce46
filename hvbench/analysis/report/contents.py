"""A run -> what its report consists of, topic by topic: tables and plots of every topic whose needs the run meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
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
    """The plots of one topic: file stem -> figure."""

    topic: Topic
    figures: Mapping[str, Figure]


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
    return [TopicFigures(topic=topic, figures=topic.plots(run)) for topic in topics_of(run)]


def _make_tables(run: Run) -> list[TopicTables]:
    return [TopicTables(topic=topic, tables=topic.tables(run)) for topic in topics_of(run)]
