"""The quotient of two means over the same launches, such as seconds spent once over seconds saved a step, with its interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hvbench.analysis.stats.confidence import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Quotient:
    """A quotient and its interval over n pairs; None: no interval, an infinite end: open to that side."""

    centre: float
    low: float | None
    high: float | None
    n: int


def quotient_of_means(above: Sequence[float], below: Sequence[float], *, confidence: float = CONFIDENCE) -> Quotient:
    """mean(above) / mean(below) of pairs, with Fieller's interval (J. R. Stat. Soc. B 16, 175, 1954); ValueError on no pairs.

    It holds every quotient q for which mean(above - q below) may be 0 (Student's t). Where the denominator itself may be 0, the
    interval is open above; the quotient of a denominator that is not positive is infinite.
    """
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if not a.size or a.size != b.size:
        raise ValueError(f"a quotient needs pairs, found {a.size} and {b.size}")
    top, bottom = float(a.mean()), float(b.mean())
    centre = top / bottom if bottom > 0 else math.inf
    if a.size == 1:
        return Quotient(centre=centre, low=None, high=None, n=1)
    t = float(special.stdtrit(a.size - 1, (1 + confidence) / 2))
    covariance = np.cov(a, b, ddof=1) * (t * t / a.size)
    # Of q: (bottom^2 - var b) q^2 - 2 (top bottom - cov) q + (top^2 - var a) <= 0
    square, half, rest = (
        bottom**2 - covariance[1, 1],
        top * bottom - covariance[0, 1],
        top**2 - covariance[0, 0],
    )
    inside = half**2 - square * rest
    if inside < 0:  # any quotient
        return Quotient(centre=centre, low=-math.inf, high=math.inf, n=int(a.size))
    root = math.sqrt(inside)
    if square > 0:
        ends = sorted(((half - root) / square, (half + root) / square))
        return Quotient(centre=centre, low=ends[0], high=ends[1], n=int(a.size))
    low = rest / (2 * half) if square == 0 else max((half - root) / square, (half + root) / square)
    return Quotient(centre=centre, low=low, high=math.inf, n=int(a.size))
