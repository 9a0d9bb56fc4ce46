"""A run -> its answer: the sentences of every topic, the ones that answer its question first, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvbench.analysis.contrasts.precision import half_width_of
from hvbench.analysis.frame.metrics import TOKENS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import topics_of
from hvbench.analysis.show.effects import say_judged
from hvbench.analysis.show.sentences import Answer, Draft, Sentence
from hvbench.analysis.topics.frameworks import contrast_frameworks
from hvbench.analysis.topics.questions import searched_field, was_launched_once
from hvbench.analysis.topics.throughput.pairs import measured_rows
from hvbench.spec.search import DOES_NOT_FIT

MAX_HEADLINES = 3
NO_RECORDS = "No launch has left a record yet, so there is nothing to say."
NO_TOKENS = (
    "Times of steps are compared, for the script does not say how many tokens a step has: where configurations do different work in a "
    "step, `probe.training(tokens_per_step=…)` makes it tokens/s."
)
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
    topics = sorted(topics_of(run), key=lambda topic: topic.precedence)
    said = [(topic.answers(run), sentence) for topic in topics for sentence in topic.sentences(run)]
    # Behind the answer, what can be said stands before what is open.
    said.sort(key=lambda pair: (not pair[0], not pair[0] and pair[1].is_open))
    said = [(_, each) for place, (_, each) in enumerate(said) if not is_said(each, [one for _, one in said[:place]])]
    # Only the first one, which is the answer, goes on with the price of what it leaves open.
    sentences = [sentence if place else sentence.with_price() for place, (_, sentence) in enumerate(said)]
    return Answer(
        headlines=tuple(sentences[:MAX_HEADLINES]),
        details=tuple(sentences[MAX_HEADLINES:]),
        certainty=(*describe_certainty(run), *failures),
    )


def is_said(sentence: Sentence, before: Sequence[Sentence]) -> bool:
    """Whether one of the sentences before says the same as one of its clauses."""
    text = sentence.text.removesuffix(".").lower()
    return any(text in each.text.lower() for each in before)


def list_advice(run: Run) -> list[str]:
    """What the topics advise to do next."""
    return [sentence for topic in topics_of(run) for sentence in topic.advice(run)]


def describe_certainty(run: Run) -> list[Sentence]:
    """By which rule points are compared, and how close the frameworks' ratios are known."""
    if run.is_of_scripts and len(measured_rows(run)) > 1 and not (run.was_evaluated or was_launched_once(run)):
        return [*([] if run.speed is TOKENS else [Draft().finish("certainty", NO_TOKENS)]), _describe_rule(Draft(), "")]
    contrasts = [each for rivals in contrast_frameworks(run) for each in rivals.family.contrasts]
    widths = [width for each in contrasts if math.isfinite(width := half_width_of(each.contrast))]
    if not widths or run.was_evaluated:
        return []
    draft = Draft()
    judged = say_judged(contrast_frameworks(run)[0].family, 0)
    width = 100 * float(np.median(widths))
    known = draft.figure(width, "half_width", judged, text=f"{width:.1f}")
    return [_describe_rule(draft, f" In the median configuration the frameworks' ratio is known to ± {known} %.")]


def _describe_rule(draft: Draft, known: str) -> Sentence:
    return draft.finish(
        "certainty",
        "Points are compared round by round, by one rule: faster is a ratio whose interval, corrected for all contrasts of "
        f"its question, leaves out {draft.count(1)}.{known}",
    )


def describe_failures(run: Run) -> list[Sentence]:
    """How many launches did not end in ok, and how; of a search, launches that did not fit are part of the answer."""
    points = run.points
    answers = ("ok", "stopped", *([DOES_NOT_FIT] if searched_field(run) else []))
    bad = points.loc[~points["status"].isin(answers), "status"]
    if bad.empty:
        return []
    draft = Draft()
    kinds = ", ".join(f"{draft.count(count)} {status}" for status, count in bad.value_counts().items())
    whole = f"{draft.count(len(bad))} of {draft.count(len(points))} launches"
    return [draft.finish("failures", f"{whole} did not end in ok: {kinds}.")]
