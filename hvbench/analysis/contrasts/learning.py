"""What each choice does to what is learned: contrasts between the values of an axis, and between the frameworks.

An axis with a value that switches it off ("does pretraining help?") is compared with that value, all else equal. Of any other
axis ("which optimizer gets furthest?") each value speaks by its best setting of everything else, and all are compared with
each other. Losses are compared after as many tokens as every launch was evaluated for; where launches stop at the target,
the steps to it are compared instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hvbench.analysis.frame.axes import order_values
from hvbench.analysis.frame.learning import (
    Learner,
    are_losses_comparable,
    choice_axes,
    list_learners,
    shared_tokens,
)
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.contrasts import Contrast, judge_family
from hvbench.analysis.stats.losses import LossCall, LossContrast, LossFamily, judge_losses

OFF = ("none", "fp32", 0)  # values that switch their axis off: the base with which the others are compared


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One value of an axis, by all settings that stand for it: seed -> loss, and seed -> steps to the target."""

    axis: str
    value: Any
    learners: tuple[Learner, ...]
    losses: Mapping[int, float]
    arrivals: Mapping[int, float]

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


@dataclass(frozen=True, kw_only=True)
class TwinGap:
    """One configuration in two frameworks, seed by seed: A - B of the losses after as many tokens."""

    framework: str  # of A
    against: str  # of B
    chosen: Mapping[str, Any]
    one: Learner
    other: Learner
    loss: LossContrast


def contrast_axis(run: Run, axis: str, *, framework: str | None = None) -> AxisGaps | None:
    """The contrasts of one axis over all frameworks, or in one; None where fewer than two values have anything to compare."""
    everybody = list_learners(run, framework=framework)
    whole = [learner for learner in everybody if learner.is_whole]
    if not whole or not are_losses_comparable(whole):
        return None
    tokens = shared_tokens(whole)
    values = order_values(axis, [learner.chosen[axis] for learner in whole])
    off = next((value for value in values if is_off(value)), None)
    if off is None or len(values) < 2:
        found = [_pick_best(axis, value, whole, tokens=tokens) for value in values]
        found.sort(key=lambda one: _rank(run, one))
        pairs = list(combinations(found, 2)) if len(found) > 1 else []
    else:
        pairs = [_match(axis, value, off, whole, tokens=tokens) for value in values if value != off]
        pairs = [pair for pair in pairs if pair]
        found = [pairs[0][1]] if pairs else []
    if not pairs:
        return None
    gaps, family = judge_pairs(
        pairs, is_by_steps=stops_at_target(run), dimensions=len(found) - 1 if off is None else None
    )
    is_best = off is None
    return AxisGaps(
        axis=axis,
        is_off=not is_best,
        base=found[0],
        gaps=tuple(gap for gap in gaps if gap.other is found[0]) if is_best else tuple(gaps),
        lost=tuple(learner for learner in everybody if learner.lost),
        tokens=tokens,
        family=family,
    )


def judge_pairs(
    pairs: Sequence[tuple[Learned, Learned]], *, is_by_steps: bool, dimensions: int | None
) -> tuple[list[Gap], LossFamily | None]:
    """Every pair's (base, other) contrast of losses and of steps; losses are left out where launches stop at the target."""
    losses = None
    if not is_by_steps and all(one.losses.keys() & base.losses.keys() for base, one in pairs):
        losses = judge_losses([(one.losses, base.losses) for base, one in pairs], dimensions=dimensions)
    steps = judge_steps(pairs, dimensions=dimensions)
    gaps = [
        Gap(one=one, other=base, loss=losses.contrasts[index] if losses else None, steps=steps[index])
        for index, (base, one) in enumerate(pairs)
    ]
    return gaps, losses


def judge_steps(pairs: Sequence[tuple[Learned, Learned]], *, dimensions: int | None = None) -> list[Contrast | None]:
    """(base, other) -> the ratio of the steps to the target, other / base; None where a launch of either did not get there."""
    usable = [index for index, pair in enumerate(pairs) if all(all_arrived(one.learners) for one in pair)]
    if not usable:
        return [None] * len(pairs)
    seeds = sorted({seed for pair in pairs for one in pair for seed in one.arrivals})
    logs = [
        [
            math.log(one.arrivals[seed] / base.arrivals[seed])
            if seed in one.arrivals and seed in base.arrivals
            else math.nan
            for seed in seeds
        ]
        for base, one in (pairs[index] for index in usable)
    ]
    judged = judge_family(logs, has_mean=False, dimensions=dimensions)
    found = dict(zip(usable, judged.contrasts, strict=True))
    return [found.get(index) for index in range(len(pairs))]


def contrast_frameworks(run: Run) -> list[TwinGap]:
    """Every configuration that the first two frameworks both trained, compared seed by seed; one family."""
    return run.derive(_contrast_frameworks)


def _contrast_frameworks(run: Run) -> list[TwinGap]:
    names = order_values("framework", run.points["framework"])[:2]
    if len(names) < 2:
        return []
    sides = [{key(learner): learner for learner in list_learners(run, framework=name)} for name in names]
    pairs, losses = [], []
    for each, other in sides[0].items():
        one = sides[1].get(each)
        if one is None or not (one.is_whole and other.is_whole):
            continue
        tokens = shared_tokens([one, other])
        a, b = one.losses_at(tokens), other.losses_at(tokens)
        if a.keys() & b.keys():
            pairs.append((one, other))
            losses.append((a, b))
    judged = judge_losses(losses).contrasts if losses else ()
    return [
        TwinGap(framework=names[1], against=names[0], chosen=one.chosen, one=one, other=other, loss=loss)
        for (one, other), loss in zip(pairs, judged, strict=True)
    ]


def frameworks_apart(run: Run) -> bool:
    """Whether the frameworks learned something else in some configuration, so that their launches are not to be averaged."""
    return any(gap.loss.call in (LossCall.LOWER, LossCall.HIGHER) for gap in contrast_frameworks(run))


def spread_of_seeds(run: Run) -> float | None:
    """How far the losses of one choice's seeds lie apart: standard deviation / mean, pooled over the choices; None with one seed."""
    shares = []
    for learner in list_learners(run):
        losses = list(learner.losses_at(shared_tokens([learner])).values()) if learner.is_whole else []
        if len(losses) > 1:
            centre = mean(losses)
            shares.append(math.fsum((loss - centre) ** 2 for loss in losses) / (len(losses) - 1) / centre**2)
    return math.sqrt(mean(shares)) if shares else None


def stops_at_target(run: Run) -> bool:
    """Whether launches ended at the target: their last losses are all about the same, and the steps say what was learned."""
    return any(record.measure.stop_at_target for record in run.records)


def all_arrived(learners: Iterable[Learner]) -> bool:
    """Whether every launch reached the target."""
    return all(learner.is_whole and all(c.arrival is not None for c in learner.curves) for learner in learners)


def is_off(value: Any) -> bool:
    """Whether a value switches its axis off."""
    return value in OFF


def key(learner: Learner) -> tuple[Any, ...]:
    """What distinguishes it."""
    return tuple(learner.chosen.values())


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def compared_axes(run: Run) -> list[str]:
    """The axes that the question compares, without the seed."""
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
        arrivals=_average([learner.arrivals for learner in learners], is_ratio=True),
    )


def _average(values: Sequence[Mapping[int, float]], *, is_ratio: bool = False) -> dict[int, float]:
    """Seed -> mean over the settings (of ratios the geometric one), for the seeds that all of them have."""
    shared = sorted(set.intersection(*(set(each) for each in values)))
    if is_ratio:
        return {seed: math.exp(mean(math.log(each[seed]) for each in values)) for seed in shared}
    return {seed: mean(each[seed] for each in values) for seed in shared}
