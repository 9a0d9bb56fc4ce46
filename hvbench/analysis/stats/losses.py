"""Losses of two choices, seed by seed -> which is lower, that they are the same, or that it cannot be said. Pure.

The one rule (`stats.contrasts`) judges differences as shares of the loss that they are compared with: a difference is named in
nats, and counts from 1 % of the loss on. The same means within the same 1 %: the 3 % within which two rates are equal
would be 0.1 nats of a loss of 3, more than most choices make, while two frameworks that do the same work agree to 0.01 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hvbench.analysis.stats.contrasts import (
    Call,
    Contrast,
    Difference,
    Family,
    Limits,
    judge_differences,
    rows_by_round,
)

SAME_WITHIN = 0.01  # of the loss: two that differ by less, wherever in the interval the truth is, are the same
OF_LOSSES = Limits(least=0.01, equal_within=SAME_WITHIN)  # of (A - B) / B
WORTH_TELLING = 0.02  # of the loss: the difference whose price is named where nothing can be said


class LossCall(StrEnum):
    """What can be said of A's loss against B's."""

    LOWER = "lower"
    HIGHER = "higher"
    SAME = "the same"  # within SAME_WITHIN
    OPEN = "open"  # it cannot be said


CALLS = {
    Call.FASTER: LossCall.HIGHER,
    Call.SLOWER: LossCall.LOWER,
    Call.EQUAL: LossCall.SAME,
    Call.OPEN: LossCall.OPEN,
}


@dataclass(frozen=True, kw_only=True)
class LossContrast:
    """A - B in nats: the mean over the seeds that both have, its corrected interval, and what it is called."""

    difference: float
    low: float | None  # None where one seed says nothing about chance
    high: float | None
    seeds: int
    p_value: float | None
    base: float  # the loss of B, mean over the seeds
    call: LossCall

    @property
    def share(self) -> float:
        """The difference as a share of B's loss."""
        return self.difference / self.base

    @property
    def largest_share(self) -> float:
        """The largest difference that the interval allows, as a share of B's loss; of one seed, the one that was seen."""
        ends = [self.difference] if self.low is None or self.high is None else [self.low, self.high]
        return max(map(abs, ends)) / self.base

    def turned(self) -> LossContrast:
        """B - A, of the same base."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        call = {LossCall.LOWER: LossCall.HIGHER, LossCall.HIGHER: LossCall.LOWER}.get(self.call, self.call)
        return replace(self, difference=-self.difference, low=low, high=high, call=call)


@dataclass(frozen=True, kw_only=True)
class LossFamily:
    """The contrasts of one question, in the order given; `shares`: the same as the rule has them, for the price of more."""

    contrasts: tuple[LossContrast, ...]
    shares: Family


def judge_losses(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], *, is_best: bool = False
) -> LossFamily:
    """Judge pairs (A, B) of seed -> loss, each pair by the seeds that both have; `is_best`: B is the best of all, A each of the others.

    ValueError for a pair without a shared seed.
    """
    shared = [sorted(a.keys() & b.keys()) for a, b in pairs]
    if not all(shared):
        raise ValueError("losses are compared seed by seed: two choices share no seed")
    bases = [math.fsum(b[seed] for seed in seeds) / len(seeds) for (_, b), seeds in zip(pairs, shared, strict=True)]
    shares_of_base = [
        {seed: (a[seed] - b[seed]) / base for seed in seeds}
        for (a, b), base, seeds in zip(pairs, bases, shared, strict=True)
    ]
    found = judge_differences(rows_by_round(shares_of_base), has_mean=False, is_best=is_best, limits=OF_LOSSES)
    shares = tuple(_as_contrast(each) for each in found.each)
    contrasts = tuple(_in_nats(each, base) for each, base in zip(found.each, bases, strict=True))
    return LossFamily(contrasts=contrasts, shares=Family(contrasts=shares, mean=None, spread=found.spread))


def _in_nats(share: Difference, base: float) -> LossContrast:
    low, high = (None if end is None else end * base for end in (share.low, share.high))
    return LossContrast(
        difference=share.mean * base,
        low=low,
        high=high,
        seeds=share.rounds,
        p_value=share.p_value,
        base=base,
        call=CALLS[share.call],
    )


def _as_contrast(share: Difference) -> Contrast:
    low, high = (None if end is None else 1 + end for end in (share.low, share.high))
    return Contrast(
        ratio=1 + share.mean, low=low, high=high, rounds=share.rounds, p_value=share.p_value, call=share.call
    )
