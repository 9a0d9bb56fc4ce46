"""What each axis of a run does to the speed, in sentences: its first value against the others, the largest effect first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.axes import KNOBS, is_own, order_values, plain_name
from hvbench.analysis.frame.metrics import TOKENS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row, head_axis
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, finish_clause, lead, words_of
from hvbench.analysis.show.forest import Forest, Side
from hvbench.analysis.show.panels import STYLES, describe_value, emulated_precisions, is_plural
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import is_number
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.forests import draw_family
from hvbench.analysis.topics.questions import asks_about_choices, asks_for_the_fastest, was_launched_once
from hvbench.analysis.topics.throughput.pairs import (
    asked_rows,
    by_framework,
    count_unmeasured,
    measured_rows,
    pair_values,
)
from hvbench.analysis.topics.topic import Need, Topic, has_measured_launches

MOST_FORESTS = 12


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of an axis against another: the pairs of points that differ in nothing else, of all frameworks."""

    axis: str
    one: object
    other: object
    pairs: Sequence[tuple[Row, Row]]
    unmeasured: int  # more such pairs that cannot be compared


def list_choices(run: Run, axes: Sequence[str]) -> list[Choice]:
    """Every other value of each axis against its first one; of numbers the largest against the smallest."""
    measured, asked = measured_rows(run), asked_rows(run)
    found = []
    for axis in axes:
        first, *others = order_values(axis, [row[axis] for row in measured])
        if pd.api.types.is_numeric_dtype(summary_of(run)[axis]):
            others = others[-1:]
        for other in (value for value in others if value is not None and first is not None):
            bound = run.bound_axes.get(axis, ())
            pairs = pair_values(measured, axis, other, first, bound=bound)
            lost = count_unmeasured(asked, axis, other, first, bound=bound)
            if pairs:
                found.append(Choice(axis=axis, one=other, other=first, pairs=pairs, unmeasured=lost))
    return found


def describe_choices(run: Run) -> list[Sentence]:
    """What each axis does: those that the question compares first, what is called before what is open, largest effect first."""
    if was_launched_once(run) or (asks_for_the_fastest(run) and len(measured_rows(run)) == 2):
        return []  # of two points the fastest says all
    is_compared = {axis: axis in run.compared_axes for axis in run.other_axes}
    found = [
        (choice, sentence) for choice in list_choices(run, run.other_axes) for sentence in describe_choice(run, choice)
    ]
    found.sort(key=lambda pair: (not is_compared[pair[0].axis], pair[1].is_open, -pair[1].strength))
    sentences = [sentence for _, sentence in found]
    if not asks_about_choices(run) or len(run.compared_axes) < 2:
        return sentences
    return summarize(sentences, [choice.axis for choice, _ in found], run.compared_axes)


def summarize(sentences: Sequence[Sentence], axes: Sequence[str], compared: Sequence[str]) -> list[Sentence]:
    """The same, the first one saying whether any of several compared axes matters. `axes`: of each sentence."""
    mine = [each for each, axis in zip(sentences, axes, strict=True) if axis in compared]
    if not mine:
        return list(sentences)
    rest = list(sentences[len(mine) :])
    if any(judged.call in (Call.FASTER, Call.SLOWER) for judged in mine[0].judged):
        label = head_axis(axes[0]).partition(" (")[0]
        return [mine[0].led_by(f"{label[0].upper()}{label[1:]} matters most"), *mine[1:], *rest]
    if any(each.is_open for each in mine):
        return list(sentences)
    first = mine[0]
    for each in mine[1:]:
        first = first.followed_by(each)
    return [first.led_by("None of them matters"), *rest]


def is_same_work(axis: str) -> bool:
    """Whether every value of the axis trains the same model on the same tokens: only then is speed of interest beside learning."""
    return axis == "precision" or (axis in KNOBS and KNOBS[axis].is_of_horovod)


def describe_choice(run: Run, choice: Choice, *, metric: str | None = None) -> list[Sentence]:
    """One sentence over all frameworks, or one each where they show opposite things."""
    family = contrast_points(run, choice.pairs, metric=metric)
    parts = _split_by_framework(run, family) if _are_opposite(family) else {"": family}
    return [
        _describe(run, choice, part, where=f" in {STYLES[name].label}" if name else "") for name, part in parts.items()
    ]


def _describe(run: Run, choice: Choice, family: PointFamily, *, where: str) -> Sentence:
    draft, emulated = Draft(), emulated_precisions(run.points)
    one, other = (
        draft.label(describe_value(choice.axis, value, emulated=emulated)) for value in (choice.one, choice.other)
    )
    words = replace(words_of(family), verb="are") if is_plural(choice.axis, choice.one) else None
    sides = Sides(one=one, other=other, things=PAIRS, where=where, words=words)
    if is_own(choice.axis) and not is_number(run.points[choice.axis]):  # words of a script have no order of their own
        family, sides = lead(family, sides)
    clause = describe_family(draft, family, sides, unmeasured=0 if where else choice.unmeasured)
    return finish_clause(draft, choice.axis, clause, run, family)


def _are_opposite(family: PointFamily) -> bool:
    """Whether a choice is faster in one framework and slower in another, as far as anything is called."""
    calls = {
        name: {
            each.contrast.call
            for each in family.contrasts
            if each.one["framework"] == name and (each.is_faster or each.is_slower)
        }
        for name in by_framework([each.one for each in family.contrasts])
    }
    return len(set.union(*calls.values())) > 1 and all(len(found) < 2 for found in calls.values())


def _split_by_framework(run: Run, family: PointFamily) -> dict[str, PointFamily]:
    """The contrasts of each framework: a family of its own, because another question is asked of each."""
    groups = by_framework([each.one for each in family.contrasts])
    return {
        name: contrast_points(
            run,
            [(each.one, each.other) for each in family.contrasts if each.one["framework"] == name],
            metric=family.metric,
        )
        for name in groups
    }


def draw_contrasts(run: Run) -> list[Forest]:
    """Each choice in all pairs of points that differ in nothing else, those first that the question compares."""
    if was_launched_once(run):
        return []
    axes = [axis for axis in run.other_axes if not run.was_evaluated or is_same_work(axis)]
    axes.sort(key=lambda axis: axis not in run.compared_axes)
    emulated = emulated_precisions(run.points)
    forests = []
    for place, choice in enumerate(list_choices(run, axes)[:MOST_FORESTS]):
        one, other = (describe_value(choice.axis, value, emulated=emulated) for value in (choice.one, choice.other))
        forest = draw_family(
            run,
            contrast_points(run, choice.pairs),
            name=f"contrast_{plain_name(choice.axis)}{place or ''}",
            title=f"{one} or {other}: which is faster{'' if run.speed is TOKENS else ' per step'}, and by how much?",
            quantity=f"{run.speed.quantity}, {one} / {other}",
            sides=tuple(
                Side(words=f"{words} {'are' if is_plural(choice.axis, value) else 'is'} faster")
                for words, value in ((other, choice.other), (one, choice.one))
            ),
        )
        forests.append(forest)
    return forests


def answers_choices(run: Run) -> bool:
    """Whether the question is what the choices do; of a script they stand beside which of them is the fastest."""
    return asks_about_choices(run) or (run.is_of_scripts and asks_for_the_fastest(run))


TOPIC = Topic(
    name="Choices",
    question="What does each choice do to the speed, all else equal?",
    needs=Need(words="launches that ended in ok", is_met=has_measured_launches),
    contrasts=draw_contrasts,
    sentences=describe_choices,
    precedence=50,
    answers=answers_choices,
)
