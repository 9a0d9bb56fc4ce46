"""What a search is after, and what one launch is worth to it. Pure.

Worth is a number, the less the better, whose order is all that counts: launches that reached the target by how soon they did; behind
them those that did not, by how far from it they were when they were last evaluated; behind these launches that diverged or failed. A launch
that was ended early is one that did not get there: what it had reached by then was among the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.frame.crossing import meet
from hvbench.analysis.frame.elapsed import mean_by_round, slowest_series, steps_of_round
from hvbench.analysis.frame.samples import Evaluated, evaluations_of, tokens_of_steps
from hvbench.errors import UsageError
from hvbench.launch.messages import Progress
from hvbench.records.record import Record
from hvbench.spec.settings import MeasureSettings

NOT_REACHED = 1e18  # times one plus the share that is missing: above any number of steps, tokens, seconds or joules
LOST = 1e30  # of what diverged or failed


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One of GOALS."""

    name: str
    in_words: str
    unit: str
    progress: str  # by what training is compared on its way: a field of Look
    is_to_target: bool = True
    needs_evaluations: bool = True
    is_of_machine: bool = False  # launches of the same losses differ in it: frameworks, and repeats


GOALS = {
    goal.name: goal
    for goal in (
        Goal(name="steps", in_words="steps to the target loss", unit="steps", progress="steps"),
        Goal(name="tokens", in_words="tokens to the target loss", unit="tokens", progress="tokens"),
        Goal(name="seconds", in_words="seconds of training to the target loss", unit="s", progress="seconds", is_of_machine=True),
        Goal(name="joules", in_words="joules to the target loss", unit="J", progress="seconds", is_of_machine=True),
        Goal(name="throughput", in_words="seconds a token", unit="s/token", progress="seconds", is_to_target=False, needs_evaluations=False, is_of_machine=True),
        Goal(name="loss", in_words="validation loss at the end", unit="nats", progress="steps", is_to_target=False),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Look:
    """One evaluation over all ranks: how far the training was, and its loss; NaN: not finite."""

    steps: float
    tokens: float
    seconds: float
    loss: float


def read_looks(record: Record) -> list[Look]:
    """The evaluations of a launch behind its first step, of one that was ended early, too."""
    found = evaluations_of(record) if record.ranks else []
    steps = min((len(rank.step_seconds) for rank in record.ranks), default=0)
    tokens = tokens_of_steps(record, steps=steps) if steps else None
    return [
        _as_look(one, tokens=0.0 if tokens is None else float(tokens[: one.step].sum())) for one in found if one.step
    ]


def look_of(message: Progress) -> Look | None:
    """The last evaluation that a worker reports; None before the first one behind its first step."""
    if not message.validation_step:
        return None
    loss = math.nan if message.validation_loss is None else float(message.validation_loss)
    return Look(
        steps=message.validation_step,
        tokens=message.validation_tokens,
        seconds=message.validation_seconds,
        loss=loss,
    )


def _as_look(one: Evaluated, *, tokens: float) -> Look:
    return Look(steps=one.step, tokens=tokens, seconds=one.training_seconds, loss=one.validation_loss)


def reach(record: Record, goal: Goal) -> float | None:
    """Steps, tokens, seconds or joules to the target, the loss at the end, or seconds a token; None where the launch did not get there.

    In between two evaluations, where the line through their losses meets the target; joules are those of the timed steps up to the
    evaluation that saw it, behind which the launch ended.
    """
    if record.outcome.status != "ok":
        return None
    if not goal.needs_evaluations:
        seconds, facts = median_step_seconds(record), record.model
        return seconds / facts.tokens_per_step if facts and math.isfinite(seconds) else None
    looks = read_looks(record)
    if not looks:
        return None
    if not goal.is_to_target:
        return looks[-1].loss if math.isfinite(looks[-1].loss) else None
    target = record.measure.target_loss
    if target is None:
        return None
    losses = [math.inf if math.isnan(look.loss) else look.loss for look in looks]
    place = meet([getattr(look, goal.progress) for look in looks], losses, target)
    if not math.isfinite(place):
        return None
    return joules(record) if goal.name == "joules" else place


def worth(record: Record, goal: Goal) -> float:
    """The number by which launches are ordered, the less the better."""
    reached = reach(record, goal)
    if reached is not None:
        return reached
    losses = [look.loss for look in read_looks(record) if math.isfinite(look.loss)]
    if record.outcome.status not in ("ok", "stopped") or not losses or not goal.needs_evaluations:
        return LOST
    target = record.measure.target_loss if goal.is_to_target else None
    return NOT_REACHED * (1 + (min(losses) / target if target else losses[-1]))


def joules(record: Record) -> float | None:
    """What all ranks drew in the timed steps: their GPUs where these are measured, else the processors; None where nothing measures any."""
    for kind in ("gpu_joules", "cpu_joules"):
        drawn = [getattr(rank.energy, kind) for rank in record.ranks if rank.energy]
        known = [each for each in drawn if each is not None]
        if known:
            return float(sum(known))
    return None


def median_step_seconds(record: Record) -> float:
    """Median of the slowest rank's timed steps, of one that was ended early, too; infinite for a launch without."""
    timed = [rank.step_seconds[record.warmup_steps :] for rank in record.ranks]
    if record.outcome.status not in ("ok", "stopped") or not timed or not min(map(len, timed)):
        return math.inf
    series = slowest_series(timed)
    return float(np.median(mean_by_round(series, steps=steps_of_round(record.point))))


def read_goals(text: str) -> tuple[Goal, ...]:
    """`steps`, or two goals with a comma between them, of which the front is searched; raises UsageError."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in GOALS]:
        raise UsageError(
            f"--goal {text}: {unknown[0] or 'nothing'} is no goal; allowed: {', '.join(GOALS)}, or two of them"
        )
    if len(names) > 2 or len(set(names)) < len(names):
        raise UsageError(f"--goal {text}: one goal, or two different ones")
    return tuple(GOALS[name] for name in names)


def require_measured(goals: Sequence[Goal], settings: MeasureSettings, *, where: str) -> None:
    """Raise UsageError where launches would not say what the goals need."""
    names = " and ".join(goal.name for goal in goals)
    if any(goal.is_to_target for goal in goals) and settings.target_loss is None:
        raise UsageError(f"{where}: goal {names} needs target_loss: set it in [measure], or with -s target_loss=LOSS")
    if not settings.evaluate_every and any(goal.needs_evaluations for goal in goals):
        raise UsageError(
            f"{where}: goal {names} needs evaluations: set evaluate_every in [measure], or with -s evaluate_every=STEPS"
        )


def find_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Places of those that no other beats in one goal without losing in another, in their order; of equal ones the first."""

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

    first = {tuple(point): index for index, point in reversed(list(enumerate(points)))}
    return [
        index
        for index, point in enumerate(points)
        if first[tuple(point)] == index and not any(beats(o, point) for o in points)
    ]
