"""Did a change that should not move the numerics move them? The recorded losses of two sets of launches say so.

Launches of one point start from the same weights and read the same batches, so every rank's loss at every step is the
same up to rounding. What a point's own launches differ by among themselves (another seed, an unordered sum on a GPU)
is measured from them and allowed on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.topics.parity.agreement import COMPARED_STEPS, LOSS_TOLERANCES
from hvbench.records.record import Record

LARGEST_TOLERANCE = max(LOSS_TOLERANCES.values())  # of a script, whose precision nobody knows
MIN_LAUNCHES_OF_SCRIPTS = 2  # of a side: one does not say whether a script trains the same each time
MIN_LAUNCHES_THAT_DIFFER = 6  # of a side, where it does not: fewer take chance for a change, see docs/measurements.md
SPREAD_FACTOR = 2.0  # of the largest difference that launches of one side show among themselves


@dataclass(frozen=True, kw_only=True)
class LossChange:
    """The largest difference of a loss between two sides in the first steps, and what rounding and spread allow."""

    largest: float  # relative
    allowed: float  # relative
    step: int | None  # first step (counted from 1) that is outside; None: none is
    loss_a: float | None  # mean over the ranks at that step
    loss_b: float | None

    @property
    def is_outside(self) -> bool:
        """Whether the numerics changed."""
        return self.step is not None


def find_loss_change(a: Sequence[Record], b: Sequence[Record]) -> LossChange | None:
    """Compare the losses of the first steps of two sides' `ok` launches of one point; None without any on a side.

    Of a script the first steps of which all launches logged a loss, and only where two launches of each side say that it trains
    the same each time, or six how much it differs.
    """
    is_script = a[0].is_script
    read = logged_losses if is_script else first_losses
    curves = [[curve for record in side if (curve := read(record)) is not None] for side in (a, b)]
    if min(map(len, curves)) < (MIN_LAUNCHES_OF_SCRIPTS if is_script else 1):
        return None
    steps = min(curve.shape[1] for side in curves for curve in side)
    ranks = min(curve.shape[0] for side in curves for curve in side)
    stacks = [np.stack([curve[:ranks, :steps] for curve in side]) for side in curves]  # (launches, ranks, steps)
    places = np.arange(steps)
    if is_script:
        places = np.flatnonzero(np.isfinite(np.concatenate(stacks)).all(axis=(0, 1)))[:COMPARED_STEPS]
        if not places.size:
            return None
        stacks = [stack[:, :, places] for stack in stacks]
    centres = [np.median(stack, axis=0) for stack in stacks]
    spread = max(float(relative(stack, centre).max()) for stack, centre in zip(stacks, centres, strict=True))
    rounding = LARGEST_TOLERANCE if is_script else LOSS_TOLERANCES[a[0].point.precision]
    if is_script and spread > rounding and min(map(len, curves)) < MIN_LAUNCHES_THAT_DIFFER:
        return None
    allowed = max(rounding, SPREAD_FACTOR * spread)
    by_step = relative(centres[1], centres[0]).max(axis=0)
    outside = np.flatnonzero(by_step > allowed)
    step = int(outside[0]) if outside.size else None
    losses = [None if step is None else _finite(float(centre[:, step].mean())) for centre in centres]
    return LossChange(
        largest=float(by_step.max()),
        allowed=allowed,
        step=None if step is None else int(places[step]) + 1,
        loss_a=losses[0],
        loss_b=losses[1],
    )


def logged_losses(record: Record) -> np.ndarray | None:
    """(1, steps): the losses that a script logged, the mean over the ranks that did; NaN where none did, None without any step."""
    curves = [
        [np.nan if loss is None else loss for loss in rank.loss]
        for rank in record.ranks
        if any(loss is not None for loss in rank.loss)
    ]
    if record.outcome.status != "ok" or not curves:
        return None
    steps = min(map(len, curves))
    logged = np.array([curve[:steps] for curve in curves])
    known = np.isfinite(logged)
    sums, counts = np.where(known, logged, 0.0).sum(axis=0), known.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)[np.newaxis]


def first_losses(record: Record) -> np.ndarray | None:
    """(ranks, steps): the losses of the first steps, infinite where a loss was no number; None without samples."""
    if record.outcome.status != "ok" or not record.ranks:
        return None
    steps = min(COMPARED_STEPS, *(len(rank.loss) for rank in record.ranks))
    ranks = sorted(record.ranks, key=lambda rank: rank.rank)
    losses = [[math.inf if loss is None else loss for loss in rank.loss[:steps]] for rank in ranks]
    return np.array(losses) if steps else None


def relative(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|values - reference| / the larger of both; 0 where both are no number, infinite where one is."""
    finite = np.isfinite(values) & np.isfinite(reference)
    x, y = np.where(finite, values, 1.0), np.where(finite, reference, 1.0)
    difference = np.abs(x - y) / np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-30)
    return np.where(finite, difference, np.where(np.isfinite(values) == np.isfinite(reference), 0.0, math.inf))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
