"""A number that is swept: up to which value each framework gets faster, what the largest brings, and what it costs in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.axes import is_own, order_values
from hvbench.analysis.frame.metrics import STEPS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.effects import (
    MEMORY,
    PAIRS,
    Sides,
    Words,
    describe_family,
    describe_price,
    finish_clause,
    say_judged,
    say_rounds,
)
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import is_number
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import by_framework, measured_rows, pair_values, title_of
from hvbench.analysis.topics.topic import Need, Topic

NAME = "growth"
UPDATE = Words(
    verb="spends", more="more on all-reduce and update per token", less="less on all-reduce and update per token",
    times="times as much on all-reduce and update per token as",
)  # fmt: skip
OTHER_NUMBERS = ("world_size", "link_bits_per_second", "sequence_length")  # of which other topics speak
OF_OVERHEAD = (0.5, 0.2, 0.05)  # a whole pass more or less changes it by half and more
OVERHEAD = "exchange_and_update_seconds_per_token"


def swept_number(run: Run) -> str | None:
    """The axis of numbers that the question compares, if it is one: a batch, passes."""
    if run.was_evaluated or len(run.compared_axes) != 1:
        return None
    axis = run.compared_axes[0]
    if is_own(axis) and (not run.names_axes or run.speed is STEPS):
        return None  # a number that may mean anything, or a larger step that may do more
    is_swept = is_number(summary_of(run)[axis]) and axis not in OTHER_NUMBERS
    values = order_values(axis, [row[axis] for row in measured_rows(run)])
    return axis if is_swept and len(values) > 1 and None not in values else None


def asks_for_growth(run: Run) -> bool:
    """Whether the question is what a larger number of one kind brings."""
    return swept_number(run) is not None


def describe_growth(run: Run) -> list[Sentence]:
    """Whether throughput keeps rising, what the largest value brings over the smallest, and what it needs."""
    axis = swept_number(run)
    if axis is None or was_launched_once(run):
        return []
    draft, measured = Draft(), measured_rows(run)
    values = order_values(axis, [row[axis] for row in measured])
    first, last = values[0], values[-1]
    smallest, largest = (draft.label(_in_words(axis, value)) for value in (first, last))
    pairs = pair_values(measured, axis, last, first, bound=run.bound_axes.get(axis, ()))
    if not pairs:
        return []
    sides = Sides(one=largest, other=smallest, things=PAIRS)
    family = contrast_points(run, pairs)
    whole = describe_family(draft, family, sides)
    if axis == "gradient_accumulation_steps" and run.points[OVERHEAD].notna().any():
        words = Sides(one=largest, other=smallest, things=PAIRS, words=UPDATE)
        saved = contrast_points(run, pairs, metric=OVERHEAD)
        clause = describe_family(draft, saved, words)
        price = describe_price(run, family) if whole.is_open else None
        if clause.is_open:
            price = describe_price(run, saved, differences=OF_OVERHEAD)
        return [
            draft.finish(
                NAME, f"{clause.text}; {whole.text}.", strength=clause.strength, is_open=clause.is_open, price=price
            )
        ]
    rising = _describe_rises(draft, run, axis, values) if len(values) > 2 else ""
    parts = [rising, whole.text] if rising else [whole.text]
    memory = Sides(one=largest, other=smallest, things=PAIRS, words=MEMORY, is_continued=True)
    parts.append(describe_family(draft, contrast_points(run, pairs, metric="peak_rss_bytes"), memory).text)
    return [finish_clause(draft, NAME, replace(whole, text="; ".join(parts)), run, family)]


def _describe_rises(draft: Draft, run: Run, axis: str, values: list[object]) -> str:
    """`throughput rises up to micro-batch 16 in PyTorch and 32 in TensorFlow`: each step of the axis against the one before."""
    steps = [
        (value, pair)
        for before, value in pairwise(values)
        for pair in pair_values(measured_rows(run), axis, value, before, bound=run.bound_axes.get(axis, ()))
    ]
    family = contrast_points(run, [pair for _, pair in steps])
    up_to: dict[object, list[str]] = {}
    for name in by_framework([one for _, (one, _) in steps]):
        calls = [
            (value, each.contrast.call)
            for (value, _), each in zip(steps, family.contrasts, strict=True)
            if each.one["framework"] == name
        ]
        up_to.setdefault(_last_rise(values, calls), []).append(title_of(run, name))
    draft.judged.extend(
        say_judged(family, i) for i, each in enumerate(family.contrasts) if each.is_faster or each.is_slower
    )
    rising = [
        f"up to {draft.label(_in_words(axis, value))}{', the largest,' if value == values[-1] else ''} in {' and '.join(names)}"
        for value, names in up_to.items()
        if value != values[0]
    ]
    rounds = say_rounds(draft, max(each.contrast.rounds for each in family.contrasts))
    text = f"throughput rises with each step {' and '.join(rising)}" if rising else ""
    if flat := up_to.get(values[0]):
        text += f"{'; ' if text else ''}{' and '.join(flat)} {'are' if len(flat) > 1 else 'is'} not shown to rise with the first step"
    return f"{text} ({rounds})"


def _last_rise(values: list[object], calls: list[tuple[object, Call]]) -> object:
    """The value up to which every step is called faster. `calls`: of each step, by the value that it leads to."""
    reached = values[0]
    for value in values[1:]:
        of_step = [call for known, call in calls if known == value]
        if not of_step or any(call is not Call.FASTER for call in of_step):
            break
        reached = value
    return reached


def _in_words(axis: str, value: object) -> str:
    return describe_value(axis, value, emulated=frozenset())


TOPIC = Topic(
    name="Growth",
    question="Does throughput keep rising with a larger number, and what does that cost?",
    needs=Need(words="an axis of numbers that the question compares", is_met=asks_for_growth),
    sentences=describe_growth,
    precedence=28,
    answers=asks_for_growth,
)
