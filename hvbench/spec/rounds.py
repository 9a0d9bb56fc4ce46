"""Which update of a training ends in which exchange between the ranks. Pure, without numpy.

Of local SGD (`hvbench.training.local_sgd` has the papers): the first `sync_start` updates average gradients; then come rounds of
`sync_every` = K updates, each by a rank's own gradients, that end in an average of the parameters. Over `sync_warmup_steps` = W updates rounds
grow: one that begins u < W updates after the start has 1 + floor((K - 1) u / W) of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache

from hvbench.spec.knob import AnyPoint


class Exchange(enum.Enum):
    """What the ranks exchange in an update."""

    GRADIENTS = enum.auto()  # before it, which is the same on all ranks
    NOTHING = enum.auto()
    PARAMETERS = enum.auto()  # behind it, which was each rank's own


def exchange_of(point: AnyPoint, step: int) -> Exchange:
    """What the ranks exchange in 0-based update `step` of a training."""
    if not point.has_local_updates or step < point.sync_start:
        return Exchange.GRADIENTS
    update = step - point.sync_start
    ends, begin = _growing_rounds(point.sync_every, point.sync_warmup_steps)
    is_last = update in ends if update < begin else (update - begin) % point.sync_every == point.sync_every - 1
    return Exchange.PARAMETERS if is_last else Exchange.NOTHING


def is_common(point: AnyPoint, steps: int) -> bool:
    """Whether all ranks have the same parameters after so many updates: not within a round."""
    return steps == 0 or exchange_of(point, steps - 1) is not Exchange.NOTHING


def first_apart(point: AnyPoint, counts: Iterable[int]) -> int | None:
    """The first of these numbers of updates after which the ranks' parameters differ; None: after none of them."""
    return next((count for count in counts if not is_common(point, count)), None)


@lru_cache(maxsize=64)
def _growing_rounds(sync_every: int, warmup_steps: int) -> tuple[frozenset[int], int]:
    """The last updates of the rounds that begin within the warm-up, and where the first one behind them begins; counted from the start."""
    ends, begin = set(), 0
    while begin < warmup_steps:
        begin += 1 + (sync_every - 1) * begin // warmup_steps
        ends.add(begin - 1)
    return frozenset(ends), begin
