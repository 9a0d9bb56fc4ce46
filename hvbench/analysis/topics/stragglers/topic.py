"""The topic: do the ranks wait for a slow one, and what does one cost?"""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.stragglers.costs import asks_about_stragglers, cost_table, describe_costs, has_costs
from hvbench.analysis.topics.stragglers.sentences import describe_stragglers
from hvbench.analysis.topics.stragglers.table import idle_table
from hvbench.analysis.topics.stragglers.work import measure_launches
from hvbench.analysis.topics.topic import Need, Topic


def has_waits(run: Run) -> bool:
    """Whether any launch is evidence of who waits for whom, or of what a straggler costs."""
    return bool(run.derive(measure_launches)) or has_costs(run)


def tables(run: Run) -> list[Table]:
    """What a straggler costs, and the idle time of the ranks."""
    costs = [cost_table(run)] if has_costs(run) else []
    return costs + ([idle_table(run)] if run.derive(measure_launches) else [])


def sentences(run: Run) -> list[Sentence]:
    """What a late rank costs, where that is asked; which rank is a straggler, where one is."""
    return [*describe_costs(run), *describe_stragglers(run)]


def has_straggler(run: Run) -> bool:
    """Whether there is anything to warn of."""
    return bool(sentences(run))


TOPIC = Topic(
    name="Stragglers",
    question="Do the ranks wait for a slow one, and for which?",
    needs=Need(words="launches of several ranks that recorded what they wait for their averages", is_met=has_waits),
    tables=tables,
    sentences=sentences,
    precedence=33,
    answers=asks_about_stragglers,
    is_in_terminal=has_straggler,
)
