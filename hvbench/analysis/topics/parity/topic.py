"""The topic "Parity"."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.parity.table import parity_table
from hvbench.analysis.topics.topic import Need, Topic, never


def was_checked(run: Run) -> bool:
    """Whether any launch carries the stamp of the check before the sweep."""
    return any(record.parity for record in run.records)


def parity_tables(run: Run) -> list[Table]:
    """The one table."""
    return [parity_table(run)]


TOPIC = Topic(
    name="Parity",
    question="Did the frameworks do the same work?",
    needs=Need(words="a sweep that checked parity before it began", is_met=was_checked),
    tables=parity_tables,
    is_in_terminal=never,
)
