"""The topic "Links"."""

from __future__ import annotations

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.links.break_even import break_even_table
from hvbench.analysis.topics.links.model import has_shaped_links, models_of
from hvbench.analysis.topics.links.plot import plot_links
from hvbench.analysis.topics.links.sentences import describe_break_evens
from hvbench.analysis.topics.links.table import LINK, links_table, select_linked
from hvbench.analysis.topics.topic import Need, Topic, always, never


def link_tables(run: Run) -> list[Table]:
    """Where compression breaks even, and the steps by link, as far as there are several links."""
    tables = [break_even_table(run)]
    if select_linked(run)[LINK].nunique() > 1:
        tables.append(links_table(run))
    return [table for table in tables if table.cells]


def link_plots(run: Run) -> dict[str, Figure]:
    """The one plot, where a model could be fitted."""
    return {"step_by_link": plot_links(run)} if models_of(run) else {}


TOPIC = Topic(
    name="Links",
    question="From which bandwidth on does compression cost more than it saves?",
    needs=Need(words="launches on links of a stated bandwidth (link_bits_per_second)", is_met=has_shaped_links),
    tables=link_tables,
    plots=link_plots,
    sentences=describe_break_evens,
    precedence=0,
    answers=always,
    is_in_terminal=never,
)
