"""A run -> its answer: the sentences of every topic, the ones that answer its question first, and how sure they are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import topics_of
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.sentences import RATE, Answer, Draft, Sentence
from hvbench.analysis.stats.estimates import read_estimate
from hvbench.analysis.topics.throughput.pairs import measured_rows

MAX_HEADLINES = 3
NO_RECORDS = "No launch has left a record yet, so there is nothing to say."
NO_SPEED = "No launch ended in ok, so no speed was measured."


def find_answer(run: Run) -> Answer:
    """Everything that can be said of a run, computed once.

    The topics that answer the run's question (`Topic.answers`) speak first, the others after them, each in the order of
    their `precedence`: a run towards a target loss is about the target, one on shaped links about them.
    """
    return run.derive(_find_answer)


def _find_answer(run: Run) -> Answer:
    if not run.records:
        return Answer(headlines=(Draft().finish("nothing", NO_RECORDS),))
    failures = describe_failures(run)
    if not measured_rows(run):
        return Answer(headlines=(Draft().finish("nothing", NO_SPEED), *failures))
    topics = sorted(topics_of(run), key=lambda topic: (not topic.answers(run), topic.precedence))
    sentences = [sentence for topic in topics for sentence in topic.sentences(run)]
    return Answer(
        headlines=tuple(sentences[:MAX_HEADLINES]),
        details=tuple(sentences[MAX_HEADLINES:]),
        certainty=(*describe_certainty(run), *failures),
    )


def list_advice(run: Run) -> list[str]:
    """What the topics advise to do next."""
    return [sentence for topic in topics_of(run) for sentence in topic.advice(run)]


def describe_certainty(run: Run) -> list[Sentence]:
    """How wide the intervals are: what a difference must exceed to be seen here."""
    rows = [row for row in measured_rows(run) if not pd.isna(row[f"{RATE}_low"])]
    estimates = [read_estimate(row, RATE) for row in rows]
    spreads = [estimate.high / estimate.low for estimate in estimates if estimate.low and estimate.high]
    if not spreads:
        return []
    draft = Draft()
    spread = draft.number(float(np.median(spreads)), "spread", *rows)
    return [
        draft.finish(
            "certainty",
            f"Points are told apart where their {INTERVAL}s over launches do not overlap; in the median point that "
            f"takes a difference by a factor of {spread}.",
        )
    ]


def describe_failures(run: Run) -> list[Sentence]:
    """How many launches did not end in ok, and how."""
    points = run.points
    bad = points.loc[points["status"] != "ok", "status"]
    if bad.empty:
        return []
    draft = Draft()
    kinds = ", ".join(f"{draft.count(count)} {status}" for status, count in bad.value_counts().items())
    whole = f"{draft.count(len(bad))} of {draft.count(len(points))} launches"
    return [draft.finish("failures", f"{whole} did not end in ok: {kinds}.")]
