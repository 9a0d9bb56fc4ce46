"""Launches -> what two points have learned after as many seconds of training as the quicker of them took, round by round.

After equal tokens a way to train that exchanges less often can only lose; whoever waits for a result asks what it has gained by then.
"""

from __future__ import annotations

import math

from hvbench.analysis.frame.learning import Curve, read_curves
from hvbench.analysis.frame.run import Run

LOSS_AFTER_EQUAL_SECONDS = "validation_loss_after_equal_seconds"


def compare_after_equal_seconds(run: Run, one: str, other: str) -> dict[int, float]:
    """Round -> ln(loss of point `one` / that of `other`), both at the last evaluation of the one that got there first."""
    a, b = (_curves_of(run, point_id) for point_id in (one, other))
    found = {}
    for when in sorted(a.keys() & b.keys()):
        seconds = min(curve.seconds[-1] for curve in (a[when], b[when]))
        ratio = a[when].loss_after(seconds) / b[when].loss_after(seconds)
        if math.isfinite(ratio):
            found[when] = math.log(ratio)
    return found


def _curves_of(run: Run, point_id: str) -> dict[int, Curve]:
    """Round -> the curve of a point's launch in it."""
    return {curve.repeat: curve for curve in read_curves(run).values() if curve.point_id == point_id}
