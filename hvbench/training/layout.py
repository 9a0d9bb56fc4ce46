"""Where documents lie in the rows of a batch: which positions see each other, and how much each backward pass counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Documents in the rows of a batch; the padding behind them is one more, whose targets are all IGNORED.

    A position attends only to positions whose document begins where its own does, and is `index - starts` in it.
    """

    starts: np.ndarray  # int32 [A, B, T]: the place in its row at which a position's document begins
    weights: np.ndarray  # float64 [A]: targets of a pass, over the mean number of all passes of the step on all ranks

    def part(self, passes: slice) -> Layout:
        """Of some of the passes."""
        return Layout(starts=self.starts[passes], weights=self.weights[passes])


# Inputs [A, B, T] and targets [A, B, T] (or classes [A, B]), int32; the layout where rows hold documents.
Batch = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, Layout]


def to_arrays(batch: Batch) -> list[np.ndarray]:
    """The arrays that a batch consists of, as an input pipeline carries them."""
    inputs, targets, *layouts = batch
    return [inputs, targets, *(array for layout in layouts for array in (layout.starts, layout.weights))]


def from_arrays(arrays: Sequence[np.ndarray]) -> Batch:
    """The batch again."""
    inputs, targets, *rest = arrays
    return (inputs, targets, Layout(starts=rest[0], weights=rest[1])) if rest else (inputs, targets)
