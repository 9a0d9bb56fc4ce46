"""Where a curve that was looked at now and then gets down to a level: on the line between the two looks around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def meet(places: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, level: float) -> float:
    """The place at which the line through (place, value) is first at or under `level`; infinite where it never is.

    Where the first value is at or under it already, its place: when the curve got there was not seen.
    """
    below = np.flatnonzero(np.asarray(values) <= level)
    if not below.size:
        return np.inf
    at = int(below[0])
    if at == 0 or not np.isfinite(values[at - 1]):
        return float(places[at])
    above, under = float(values[at - 1]), float(values[at])
    share = (above - level) / (above - under)
    return float(places[at - 1] + share * (places[at] - places[at - 1]))
