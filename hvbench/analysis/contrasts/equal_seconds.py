"""Launches -> what two points have learned after as many seconds of training as the quicker of them took, round by round.

After equal tokens a way to train that exchanges less often can only lose; whoever waits for a result asks what it has gained by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.frame.run import Run

LOSS_AFTER_EQUAL_SECONDS = "validation_loss_after_equal_seconds"


@dataclass(frozen=True, kw_only=True)
class LossOverTime:
    """The validation loss of one launch, evaluation by evaluation."""

    seconds: np.ndarray  # of training until then, evaluations left out
    losses: np.ndarray

    def at(self, seconds: float) -> float:
        """The loss then, on the line between two evaluations; NaN outside of them. A curve that bends down lies below that line: a loss is rather too high than too low."""
        return float(np.interp(seconds, self.seconds, self.losses, left=np.nan, right=np.nan))


def compare_after_equal_seconds(run: Run, one: str, other: str) -> dict[int, float]:
    """Round -> ln(loss of point `one` / that of `other`), both at the last evaluation of the one that got there first."""
    curves: dict[str, dict[int, LossOverTime]] = run.derive(_read_curves)
    a, b = (curves.get(point_id, {}) for point_id in (one, other))
    found = {}
    for when in a.keys() & b.keys():
        seconds = min(curve.seconds[-1] for curve in (a[when], b[when]))
        ratio = a[when].at(seconds) / b[when].at(seconds)
        if math.isfinite(ratio):
            found[when] = math.log(ratio)
    return dict(sorted(found.items()))


def _read_curves(run: Run) -> dict[str, dict[int, LossOverTime]]:
    """Point -> round -> the curve of its launch, of those that ended in ok."""
    good = run.points[run.points["status"] == "ok"].set_index("launch")
    marks = run.evaluations[run.evaluations["launch"].isin(good.index)].dropna(
        subset=["validation_loss", "training_seconds"]
    )
    found: dict[str, dict[int, LossOverTime]] = {}
    for launch, own in marks.groupby("launch"):
        curve = LossOverTime(
            seconds=own["training_seconds"].to_numpy(float), losses=own["validation_loss"].to_numpy(float)
        )
        found.setdefault(str(good.loc[launch, "point_id"]), {})[int(good.loc[launch, "repeat"])] = curve
    return found
