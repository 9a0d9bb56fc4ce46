"""A run with one launch of every point: that everything ran, what was measured, and what it takes to compare it."""

from __future__ import annotations

from hvbench.analysis.contrasts.points import contrast_best
from hvbench.analysis.frame.metrics import Speed
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.effects import describe_price
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import asked_rows, by_framework, measured_rows, title_of
from hvbench.analysis.topics.topic import Need, Topic

NAME = "once"


def is_about_speed(run: Run) -> bool:
    """Whether the run's question is about speed; of learning one launch can say something."""
    return not run.was_evaluated


def is_to_compare(run: Run) -> bool:
    """Whether one launch of every point was meant to compare them: a search tries points to find one."""
    return was_launched_once(run) and not run.request.get("search")


def describe_once(run: Run) -> list[Sentence]:
    """Whether every point ran to its end, between which rates, and the price of comparing them."""
    measured, asked = measured_rows(run), asked_rows(run)
    draft = Draft()
    names = [title_of(run, name) for name in by_framework(asked)]
    of_script = f" of {names[0]}" if run.is_of_scripts else ""
    where = "" if run.is_of_scripts else f" in {' and '.join(names)}"
    if len(measured) == len(asked):
        whole = draft.all_of(len(asked), "points") if len(asked) > 1 else "the one point"
        text = f"{whole}{of_script} ran to the end{where}"
    else:
        text = f"{draft.count(len(measured))} of {draft.count(len(asked))} points{of_script} ran to the end{where}"
    speed = run.speed
    rates = sorted(measured, key=lambda row: float(row[speed.column]))
    low = _say_speed(draft, speed, rates[0])
    if len(rates) == 1:
        return [draft.finish(NAME, f"{text}, at {low} {speed.unit}; one launch says nothing about chance.")]
    text += f", at {low} to {_say_speed(draft, speed, rates[-1])} {speed.unit}; one launch a point does not say which is faster"
    return [draft.finish(NAME, f"{text}.", price=describe_price(run, contrast_best(run, measured)))]


def _say_speed(draft: Draft, speed: Speed, row: Row) -> str:
    return draft.number(speed.scale * row[speed.column], "centre", row, metric=speed.column)


TOPIC = Topic(
    name="One launch a point",
    question="Did everything run, and what would it take to compare the points?",
    needs=Need(words="one launch that ended in ok of each point", is_met=is_to_compare),
    sentences=describe_once,
    precedence=25,
    answers=is_about_speed,
)
