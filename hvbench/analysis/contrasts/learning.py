"""What each choice does to what is learned: contrasts between the values of an axis.

An axis with a value that switches it off ("does pretraining help?") is compared with that value, all else equal. Of any other
axis ("which optimizer gets furthest?") each value speaks by its best setting of everything else, with nothing switched on, and
all are compared with each other. Losses are compared after as many tokens as every launch was evaluated for; where launches stop at the target,
the steps to it are compared instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.analysis.frame.axes import GLOBAL_BATCH, order_values
from hvbench.analysis.frame.learning import (
    Learner,
    are_losses_comparable,
    choice_axes,
    list_learners,
    shared_tokens,
)
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.contrasts import (
    Contrast,
    Difference,
    Family,
    judge_differences,
    judge_family,
    rows_by_round,
)
from hvbench.analysis.stats.losses import LossContrast, LossFamily, judge_losses

OFF = ("none", "fp32", 0)  # values that switch their axis off: the base with which the others are compared


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One value of an axis, by all settings that stand for it: seed -> loss, and seed -> steps to the target."""

    axis: str
    value: Any
    learners: tuple[Learner, ...]
    losses: Mapping[int, float]
    arrivals: Mapping[int, float]
    accuracies: Mapping[int, float]  # shares; of classifiers alone

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean(self.losses.values())

    @property
    def steps(self) -> float:
        """Mean steps to the target over the seeds."""
        return mean(self.arrivals.values())


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One value against another: by the loss, and by the steps to the target where every launch of both got there."""

    one: Learned
    other: Learned
    loss: LossContrast | None
    steps: Contrast | None
    accuracy: Difference | None  # of shares; of classifiers alone


@dataclass(frozen=True, kw_only=True)
class AxisGaps:
    """All contrasts of one axis: each of `others` against `base`, the value that switches it off or else the best one."""

    axis: str
    is_off: bool
    base: Learned
    gaps: tuple[Gap, ...]  # `one` is the other value, `other` the base; the best value or the first one first
    lost: tuple[Learner, ...]  # settings of which launches diverged, failed or gave up: they are no part of it
    tokens: float
    family: LossFamily | None
    family_of_steps: Family | None


def contrast_axis(run: Run, axis: str, *, framework: str | None = None) -> AxisGaps | None:
    """The contrasts of one axis over all frameworks, or in one; None where fewer than two values have anything to compare."""
    everybody = choose_plain(run, axis, list_learners(run, framework=framework))
    whole = [learner for learner in everybody if learner.is_whole]
    if not whole or not are_losses_comparable(whole):
        return None
    tokens = shared_tokens(whole)
    values = order_values(axis, [learner.chosen[axis] for learner in whole])
    off = next((value for value in values if is_off(value)), None)
    if off is None or len(values) < 2:
        found = [_pick_best(axis, value, whole, tokens=tokens) for value in values]
        found.sort(key=lambda one: _rank(run, one))
        pairs = [(found[0], other) for other in found[1:]]
    else:
        pairs = [_match(axis, value, off, whole, tokens=tokens) for value in values if value != off]
        pairs = [pair for pair in pairs if pair]
        found = [pairs[0][1]] if pairs else []
    if not pairs:
        return None
    is_best = off is None
    gaps, family, family_of_steps = judge_pairs(pairs, is_by_steps=stops_at_target(run), is_best=is_best)
    return AxisGaps(
        axis=axis,
        is_off=not is_best,
        base=found[0],
        gaps=tuple(gaps),
        lost=tuple(learner for learner in everybody if learner.lost),
        tokens=tokens,
        family=family,
        family_of_steps=family_of_steps,
    )


def choose_plain(run: Run, axis: str, learners: Sequence[Learner]) -> list[Learner]:
    """For an axis that nothing switches off: the learners that have all that the question switches on switched off.

    So schedules are compared over their whole length, and not with batches that grow beside those that do not.
    """
    if any(is_off(learner.chosen[axis]) for learner in learners):
        return list(learners)
    switches = [
        other
        for other in compared_axes(run)
        if other not in (axis, *GLOBAL_BATCH) and any(is_off(learner.chosen[other]) for learner in learners)
    ]
    return [learner for learner in learners if all(is_off(learner.chosen[other]) for other in switches)]


def judge_pairs(
    pairs: Sequence[tuple[Learned, Learned]], *, is_by_steps: bool, is_best: bool
) -> tuple[list[Gap], LossFamily | None, Family | None]:
    """Every pair's (base, other) contrast of losses and of steps; losses are left out where launches stop at the target."""
    losses = None
    if not is_by_steps and all(one.losses.keys() & base.losses.keys() for base, one in pairs):
        losses = judge_losses([(one.losses, base.losses) for base, one in pairs], is_best=is_best)
    steps, family_of_steps = judge_steps(pairs, is_best=is_best)
    accuracies = judge_accuracies(pairs, is_best=is_best)
    gaps = [
        Gap(
            one=one,
            other=base,
            loss=losses.contrasts[index] if losses else None,
            steps=steps[index],
            accuracy=accuracies[index],
        )
        for index, (base, one) in enumerate(pairs)
    ]
    return gaps, losses, family_of_steps


def judge_steps(
    pairs: Sequence[tuple[Learned, Learned]], *, is_best: bool = False
) -> tuple[list[Contrast | None], Family | None]:
    """(base, other) -> the ratio of the steps to the target, other / base; None where a launch of either did not get there. Its family."""
    usable = [index for index, pair in enumerate(pairs) if all(all_arrived(one.learners) for one in pair)]
    if not usable:
        return [None] * len(pairs), None
    logs = [
        {
            seed: math.log(one.arrivals[seed] / base.arrivals[seed])
            for seed in one.arrivals.keys() & base.arrivals.keys()
        }
        for base, one in (pairs[index] for index in usable)
    ]
    judged = judge_family(rows_by_round(logs), has_mean=False, is_best=is_best)
    found = dict(zip(usable, judged.contrasts, strict=True))
    return [found.get(index) for index in range(len(pairs))], judged


def judge_accuracies(pairs: Sequence[tuple[Learned, Learned]], *, is_best: bool = False) -> Sequence[Difference | None]:
    """(base, other) -> the difference of the shares that they name right, other - base; None where they are no classifiers."""
    if not all(one.accuracies.keys() & base.accuracies.keys() for base, one in pairs):
        return [None] * len(pairs)
    shares = [
        {seed: one.accuracies[seed] - base.accuracies[seed] for seed in one.accuracies.keys() & base.accuracies.keys()}
        for base, one in pairs
    ]
    return judge_differences(rows_by_round(shares), has_mean=False, is_best=is_best).each


def stops_at_target(run: Run) -> bool:
    """Whether launches ended at the target: their last losses are all about the same, and the steps say what was learned."""
    return any(record.measure.stop_at_target for record in run.records)


def all_arrived(learners: Iterable[Learner]) -> bool:
    """Whether every launch reached the target."""
    return all(learner.is_whole and all(c.arrival is not None for c in learner.curves) for learner in learners)


def is_off(value: Any) -> bool:
    """Whether a value switches its axis off."""
    return value in OFF


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def compared_axes(run: Run) -> list[str]:
    """The axes that the question compares, without the seed; of a script, which trains whatever its seed, only with several seeds."""
    if run.is_of_scripts and run.points["trained_seed"].nunique() < 2:
        return []
    return [axis for axis in run.compared_axes if axis in choice_axes(run)]


def _rank(run: Run, one: Learned) -> float:
    if stops_at_target(run):
        return one.steps if all_arrived(one.learners) else math.inf
    return one.loss


def _pick_best(axis: str, value: Any, learners: Sequence[Learner], *, tokens: float) -> Learned:
    mine = [learner for learner in learners if learner.chosen[axis] == value]
    found = [_learned(axis, value, [learner], tokens=tokens) for learner in mine]
    return min(found, key=lambda one: (math.isnan(one.loss), one.loss))


def _match(
    axis: str, value: Any, off: Any, learners: Sequence[Learner], *, tokens: float
) -> tuple[Learned, Learned] | None:
    """(base, other): the settings that both values have, averaged seed by seed."""

    def rest(learner: Learner) -> tuple[Any, ...]:
        return tuple(setting for name, setting in learner.chosen.items() if name != axis)

    sides = [{rest(one): one for one in learners if one.chosen[axis] == side} for side in (off, value)]
    shared = [each for each in sides[0] if each in sides[1]]
    if not shared:
        return None
    base, other = (
        _learned(axis, side, [found[each] for each in shared], tokens=tokens)
        for side, found in zip((off, value), sides, strict=True)
    )
    return base, other


def _learned(axis: str, value: Any, learners: Sequence[Learner], *, tokens: float) -> Learned:
    return Learned(
        axis=axis,
        value=value,
        learners=tuple(learners),
        losses=_average([learner.losses_at(tokens) for learner in learners]),
        accuracies=_average([learner.accuracies_at(tokens) for learner in learners]),
        arrivals=_average([learner.arrivals for learner in learners], is_ratio=True),
    )


def _average(values: Sequence[Mapping[int, float]], *, is_ratio: bool = False) -> dict[int, float]:
    """Seed -> mean over the settings (of ratios the geometric one), for the seeds that all of them have."""
    shared = sorted(set.intersection(*(set(each) for each in values)))
    if is_ratio:
        return {seed: math.exp(mean(math.log(each[seed]) for each in values)) for seed in shared}
    return {seed: mean(each[seed] for each in values) for seed in shared}
