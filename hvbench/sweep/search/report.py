"""What a search says: a line a trial, and at the end what was found and what it gains. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call, Contrast
from hvbench.analysis.stats.losses import LossCall, LossContrast
from hvbench.records.record import Record
from hvbench.spec.labels import describe_values
from hvbench.spec.point import Point
from hvbench.sweep.search.found import Found, Pair
from hvbench.sweep.search.goals import Goal, Look, reach, read_looks
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.space import GLOBAL_BATCH, MICRO_BATCH, Values, find_idle_names


def describe_trial(
    values: Values | None, record: Record, goals: Sequence[Goal], *, reason: str | None = None, is_best: bool = False
) -> str:
    """`learning_rate=0.01 optimizer=lamb  62.4 steps, the best so far`; `values` None: the default."""
    name = f"default in {record.point.framework}" if values is None else describe_values(values)
    reached = [(goal, reach(record, goal)) for goal in goals]
    looks = read_looks(record)
    if record.outcome.status == "stopped":
        how = f"ended early, {describe_look(looks[-1])}: {reason}" if looks and reason else "ended early"
    elif record.outcome.status != "ok":
        how = f"{record.outcome.status}: {record.outcome.reason}"
    elif missed := [goal for goal, value in reached if value is None]:
        how = f"not at the target, {describe_look(looks[-1])}" if looks else f"no {missed[0].in_words}"
    else:
        how = ", ".join(show_value(value, goal) for goal, value in reached if value is not None)
        how += ", the best so far" if is_best else ""
    return f"{name}  {how}"


def describe_pair(pair: Pair, goal: Goal) -> str:
    """`pair: 61.3 steps, by default 98.2 steps`."""
    found, default = ("not there" if value is None else show_value(value, goal) for value in (pair.found, pair.default))
    return f"pair: {found}, by default {default}"


def describe_found(found: Found, question: Question) -> str:
    """The result of a search: the values of the best, what it gains by the pairs, and how many trials it took; of two goals the front."""
    best = found.best
    lines = []
    if found.front:
        lines.append(f"the front of {' and '.join(goal.in_words for goal in question.goals)}, of one seed:")
        for record in found.front:
            values = ", ".join(show_value(reach(record, goal), goal) for goal in question.goals)
            lines.append(f"  {values}  {name_point(record.point, question)}")
    count = f"{found.trials} trials, {found.ended_early} of them ended early"
    if best.point == found.default:
        return "\n".join([*lines, f"nothing was found that beats the default ({count})"])
    lines.append(name_point(best.point, question))
    confirmed = found.confirmed
    gain = describe_gain(confirmed.contrast, question.goal) if confirmed.contrast else confirmed.describe_missed()
    return "\n".join([*lines, gain, count])


def name_point(point: Point, question: Question) -> str:
    """The values that were searched, as fields of a point that `hvbench run` takes."""
    names = [MICRO_BATCH if name == GLOBAL_BATCH else name for name in question.tried_space.dimensions]
    idle = find_idle_names(point)
    return describe_values({name: getattr(point, name) for name in names if name not in idle})


def describe_look(look: Look) -> str:
    """`loss 4.312 after 40 steps`."""
    loss = f"loss {look.loss:.3f}" if math.isfinite(look.loss) else "loss not finite"
    return f"{loss} after {look.steps:g} steps"


def show_value(value: float, goal: Goal) -> str:
    """`62.4 steps`, `1,234,567 tokens`, `3.412 nats`."""
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{text} {goal.unit}"


def describe_gain(contrast: Contrast | LossContrast, goal: Goal) -> str:
    """What was found against the default, by the one rule, of pairs of launches with seeds that the search has not seen."""
    if isinstance(contrast, LossContrast):
        return _describe_loss(contrast)
    n = contrast.rounds
    is_less = contrast.ratio <= 1  # found / default
    told = contrast.turned() if is_less else contrast
    interval = "no interval"
    if told.low is not None and told.high is not None:
        interval = f"95 % interval {told.low:.2f} to {told.high:.2f}"
    called = {
        Call.EQUAL: f": within {100 * EQUAL_WITHIN:g} % of each other",
        Call.OPEN: f": {n} pair{'s' * (n != 1)} cannot say which is less",
    }.get(contrast.call, "")
    which = ("the default takes", "this") if is_less else ("this takes", "the default")
    return (
        f"{which[0]} {told.ratio:.2f} times as many {goal.in_words} as {which[1]} ({interval}, n = {n} "
        f"seed{'s' * (n != 1)}){called}"
    )


def _describe_loss(contrast: LossContrast) -> str:
    interval = "no interval"
    if contrast.low is not None and contrast.high is not None:
        interval = f"95 % interval {contrast.low:+.3f} to {contrast.high:+.3f}"
    called = {LossCall.SAME: ": the same", LossCall.OPEN: ": it cannot be said which is lower"}.get(contrast.call, "")
    n = contrast.seeds
    which = "lower" if contrast.difference <= 0 else "higher"
    return (
        f"validation loss {abs(contrast.difference):.3f} nats {which} than by default, which ends at {contrast.base:.3f} "
        f"({interval}, n = {n} seed{'s' * (n != 1)}){called}"
    )
