"""Whether two frameworks learn the same: their losses of one configuration and one seed, compared by the one rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.analysis.contrasts.learning import mean
from hvbench.analysis.frame.axes import order_values
from hvbench.analysis.frame.learning import Learner, list_learners, shared_tokens
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.losses import LossCall, LossContrast, judge_losses


@dataclass(frozen=True, kw_only=True)
class TwinGap:
    """One configuration in two frameworks, seed by seed: A - B of the losses after as many tokens."""

    framework: str  # of A
    against: str  # of B
    chosen: Mapping[str, Any]
    one: Learner
    other: Learner
    loss: LossContrast


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


def contrast_over_all(gaps: Sequence[TwinGap]) -> LossContrast | None:
    """A - B over all configurations together, in shares of the loss, seed by seed: for what no configuration alone can say."""
    shares = []
    for gap in gaps:
        tokens = shared_tokens([gap.one, gap.other])
        a, b = gap.one.losses_at(tokens), gap.other.losses_at(tokens)
        shares.append({seed: (a[seed] - b[seed]) / gap.loss.base for seed in a.keys() & b.keys()})
    seeds = set.intersection(*map(set, shares)) if shares else set()
    if not seeds:
        return None
    whole = {seed: 1 + mean(each[seed] for each in shares) for seed in seeds}
    return judge_losses([(whole, dict.fromkeys(seeds, 1.0))]).contrasts[0]


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


def key(learner: Learner) -> tuple[Any, ...]:
    """What distinguishes it."""
    return tuple(learner.chosen.values())
