"""When a running launch is trained no further: successive halving by the losses that it reports, and no longer than the best. Pure.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) as it is done without waiting (ASHA, Li et al., MLSys 2020, in its form that stops
launches instead of resuming them): at each *rung*, a third, a ninth, … of the whole way, a launch goes on if it is among the best third of those
that have come so far. The shorter lengths are the cheaper fidelities, and cost nothing twice: a launch that stays is already under way.
A slow starter may be the best in the end, so every third launch is judged from the second rung on, as another bracket of Hyperband (Li et al., JMLR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.sweep.search.goals import Look

REDUCTION = 3  # of those that come to a rung, one in so many goes on
PATIENT_EVERY = 3  # launches, of which one is judged later


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Rungs on the way of a launch, in `progress` (a field of Look), rising."""

    progress: str
    rungs: tuple[float, ...]

    def find_end(
        self, own: Sequence[Look], others: Sequence[Sequence[Look]], *, is_patient: bool = False
    ) -> str | None:
        """Why a launch should end, by its evaluations so far and those of launches before it; None: it goes on.

        Where reports skip an evaluation, losses are compared at the one that was reported, on the line between those of the others.
        """
        place = getattr(own[-1], self.progress)
        before = getattr(own[-2], self.progress) if len(own) > 1 else 0.0
        rungs = self.rungs[1:] if is_patient else self.rungs
        passed = [rung for rung in rungs if before < rung <= place]
        if not passed:
            return None
        there = [losses for losses in others if losses and getattr(losses[-1], self.progress) >= passed[-1]]
        better = sum(self.loss_at(losses, place) < own[-1].loss for losses in there)
        if better < max(1, (len(there) + 1) // REDUCTION):
            return None
        return f"{better} of {len(there)} were better after {place:g} {self.progress}"

    def loss_at(self, looks: Sequence[Look], place: float) -> float:
        """The loss of a launch at a place of its way, or its last one."""
        return float(np.interp(place, [getattr(look, self.progress) for look in looks], [look.loss for look in looks]))


def make_halving(progress: str, *, whole: float, first: float) -> Halving:
    """Rungs for a way of length `whole`, none before `first`, the place of the first evaluation."""
    rungs, rung = [], whole / REDUCTION
    while rung >= first:
        rungs.append(rung)
        rung /= REDUCTION
    return Halving(progress=progress, rungs=tuple(reversed(rungs)))


def find_hopeless(own: Sequence[Look], *, progress: str, best: float | None) -> str | None:
    """Why a launch cannot be the best any more, whatever follows: its loss is not finite, or the best one was at the target by now."""
    if not math.isfinite(own[-1].loss):
        return "its loss is not finite"
    place = getattr(own[-1], progress)
    if best is not None and place >= best:
        return f"not at the target after {place:g} {progress}, the best was after {best:g}"
    return None
