"""What each axis of a run does to the speed, in sentences: its first value against the others, the largest effect first."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.axes import order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import STYLES, describe_value, emulated_precisions
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.throughput.pairs import (
    Pair,
    asked_rows,
    by_framework,
    compare_values,
    count_unmeasured,
    describe_contrast,
    measured_rows,
)
from hvbench.analysis.topics.topic import Need, Topic, has_measured_launches


def describe_choices(run: Run) -> list[Sentence]:
    """What each axis does: its first value against the others (of numbers: the largest), largest effect first."""
    measured, emulated = measured_rows(run), emulated_precisions(run.points)
    sentences = []
    for axis in run.other_axes:
        first, *others = order_values(axis, [row[axis] for row in measured])
        if pd.api.types.is_numeric_dtype(summary_of(run)[axis]):
            others = others[-1:]
        for other in (value for value in others if value is not None and first is not None):
            pairs_of = {name: compare_values(rows, axis, other, first) for name, rows in by_framework(measured).items()}
            lost = {
                name: count_unmeasured(rows, axis, other, first) for name, rows in by_framework(asked_rows(run)).items()
            }
            sentences += describe_choice_of(axis, (other, first), pairs_of, emulated=emulated, unmeasured=lost)
    return sorted(sentences, key=lambda sentence: -sentence.strength)


def describe_choice_of(
    axis: str,
    values: tuple[object, object],
    pairs_of: dict[str, list[Pair]],
    *,
    emulated: frozenset[str],
    unmeasured: dict[str, int],
) -> list[Sentence]:
    """One sentence for all frameworks where they show the same, else one each. `unmeasured`: of `count_unmeasured`."""
    labels = (describe_value(axis, values[0], emulated=emulated), describe_value(axis, values[1], emulated=emulated))
    directions = {
        name: (any(p.is_faster for p in pairs), any(p.is_slower for p in pairs)) for name, pairs in pairs_of.items()
    }
    if len(directions) > 1 and set(directions.values()) in ({(True, False)}, {(False, True)}):
        whole = "both" if len(directions) == 2 else "all"
        pairs = [pair for pairs in pairs_of.values() for pair in pairs]
        groups = {f"in {whole} frameworks": (pairs, sum(unmeasured.get(name, 0) for name in pairs_of))}
    else:
        groups = {f"in {STYLES[name].label}": (pairs, unmeasured.get(name, 0)) for name, pairs in pairs_of.items()}
    said = [
        describe_contrast(
            axis,
            pairs,
            labels=labels,
            things="pairs of points that differ in nothing else",
            differ=f" {where}",
            unmeasured=lost,
        )
        for where, (pairs, lost) in groups.items()
    ]
    return [sentence for sentence in said if sentence]


TOPIC = Topic(
    name="Choices",
    question="What does each choice do to the speed, all else equal?",
    needs=Need(words="launches that ended in ok", is_met=has_measured_launches),
    sentences=describe_choices,
    precedence=50,
)
