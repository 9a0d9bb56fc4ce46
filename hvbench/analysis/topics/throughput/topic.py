"""The topics "Fastest" and "Throughput"."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.frameworks import describe_frameworks
from hvbench.analysis.topics.questions import asks_for_the_fastest
from hvbench.analysis.topics.throughput.plot import plot_swept_axes
from hvbench.analysis.topics.throughput.sentences import describe_fastest
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.analysis.topics.topic import Need, Topic, always, has_measured_launches


def throughput_tables(run: Run) -> list[Table]:
    """The one table, which a run without launches has too."""
    return [throughput_table(run)]


def answer_fastest(run: Run) -> list[Sentence]:
    """The fastest configuration; where that is open, which framework is faster stands before it, if that can be said."""
    fastest = describe_fastest(run)
    if not fastest or not fastest[0].is_open:
        return fastest
    return [*(sentence for sentence in describe_frameworks(run) if not sentence.is_open), *fastest]


FASTEST = Topic(
    name="Fastest",
    question="Which configuration is the fastest?",
    needs=Need(words="launches that ended in ok", is_met=has_measured_launches),
    sentences=answer_fastest,
    precedence=36,
    answers=asks_for_the_fastest,
)
TOPIC = Topic(
    name="Throughput",
    question="How many tokens does each configuration train per second, and how long does a step take?",
    needs=Need(words="nothing", is_met=always),
    tables=throughput_tables,
    plots=plot_swept_axes,
    question_of_scripts="How long does a step of each configuration take, and how many tokens a second is that?",
)
