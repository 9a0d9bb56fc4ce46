"""A run -> what the command line prints of it: the answer, brief columns of some topics' tables, what must be known beside them."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.report.contents import tables_by_topic
from hvbench.analysis.report.quality import describe_target_precision
from hvbench.analysis.show.render import render_text
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.topics.ceilings import describe_ranks_together
from hvbench.analysis.topics.parity.stamps import verdict_of
from hvbench.analysis.topics.wire import find_large_losses


def render_terminal(run: Run) -> list[str]:
    """The lines to print; none for a run without records."""
    if not run.records:
        return []
    lines = [line for sentence in find_answer(run).headlines for line in ("", clean_text(sentence.text, limit=2000))]
    for part in tables_by_topic(run):
        if part.topic.is_in_terminal(run):
            lines += [line for table in part.tables for line in ("", render_text(table))]
    verdict = verdict_of(run)
    if verdict and not verdict.is_proven:
        lines += ["", clean_text(f"{verdict.title} {verdict.text}", limit=2000)]
    if together := describe_ranks_together(run):
        lines += ["", *together]
    lines += [text for line in run.derive(find_large_losses) for text in ("", clean_text(line, limit=2000))]
    if precision := describe_target_precision(run):
        lines += ["", *(clean_text(line, limit=4000) for line in precision)]
    return lines
