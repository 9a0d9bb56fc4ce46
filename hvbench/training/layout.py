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
    # int32 [A, samples]: where each sample begins among the rows of its pass, row · T + place; None: each has the row of its number.
    places: np.ndarray | None = None

    def part(self, passes: slice) -> Layout:
        """Of some of the passes."""
        places = None if self.places is None else self.places[passes]
        return Layout(starts=self.starts[passes], weights=self.weights[passes], places=places)

    def select(self, samples: np.ndarray) -> Layout:
        """The layout of `samples` [n] of one pass, which may come several times; where they share rows, these stay."""
        if self.places is None:
            return Layout(starts=self.starts[:, samples], weights=np.ones(1))
        return Layout(starts=self.starts, weights=np.ones(1), places=self.places[:, samples])

    def of_pass(self, number: int) -> tuple[np.ndarray, ...]:
        """What `logits` of a trainer takes of one pass, behind its inputs."""
        return (self.starts[number],) if self.places is None else (self.starts[number], self.places[number])


CARRIED = (
    "starts",
    "weights",
    "places",
)  # the fields of a layout in the order in which a pipeline carries them; the last may be missing
# Inputs [A, B, T] and targets [A, B, T] (or classes [A, samples]), int32; the layout where rows hold documents.
Batch = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, Layout]


def to_arrays(batch: Batch) -> list[np.ndarray]:
    """The arrays that a batch consists of, as an input pipeline carries them."""
    inputs, targets, *layouts = batch
    carried = (getattr(layout, name) for layout in layouts for name in CARRIED)
    return [inputs, targets, *(array for array in carried if array is not None)]


def from_arrays(arrays: Sequence[np.ndarray]) -> Batch:
    """The batch again."""
    inputs, targets, *rest = arrays
    return (inputs, targets, Layout(**dict(zip(CARRIED, rest, strict=False)))) if rest else (inputs, targets)
