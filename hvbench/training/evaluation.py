"""The validation set: which samples each rank evaluates, and the mean over all of them.

Every target counts once and equally, whatever the micro-batch and the number of ranks. A mean over samples is one over
targets: all samples of an objective have equally many (T tokens, a fixed share of them where tokens are hidden, or
one class). Only rows of documents have not, and count by their targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class ValidationBatch:
    """A micro-batch of validation samples; a last one that is not full repeats samples, which do not count.

    A batch always has B rows, so that no framework compiles another graph for the last one.
    """

    inputs: np.ndarray  # [B, T]
    targets: np.ndarray  # [B, T], or classes [B]
    starts: np.ndarray | None = None  # [B, T], of `hvbench.training.layout.Layout`, where rows hold documents
    samples: int = field(kw_only=True)  # leading rows that count


def share_of_rank(samples: int, *, rank: int, world_size: int) -> range:
    """The numbers of those of `samples` validation samples that `rank` evaluates; shares differ by one at most."""
    return range(rank * samples // world_size, (rank + 1) * samples // world_size)


def mean_over_ranks(means: Sequence[float | None], *, samples: Sequence[int]) -> float:
    """Mean over all samples, from each rank's mean over its own; None or NaN where a rank with samples has none: NaN."""
    total = sum(samples)
    parts = [count * (math.nan if mean is None else mean) for mean, count in zip(means, samples, strict=True) if count]
    return sum(parts) / total if total else math.nan
