"""The table "Parity": what the check before the sweep measured in every configuration, beside what is allowed."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE, show_value
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, head_axes, leading_axes
from hvbench.analysis.stats.estimates import sort_points
from hvbench.analysis.topics.parity.stamps import describe_worst, judge
from hvbench.records.record import NOT_COMPARED, NOT_PROVEN, ParityStamp

KINDS = ("logits", "loss", "gradient", "update")
HEADERS_OF_KINDS = ("logits", "loss", "gradients", "updates")
NOTE = (
    "Before the sweep the frameworks train a few updates from the same weights and batches. Each figure is the "
    "largest ‖a − b‖ / ‖b‖ over tensors, updates and ranks, beside what is allowed; gradients are those after the "
    "all-reduce, compressed where the configuration compresses. Overflows: loss scales tried before the first gradient "
    "without one. n: launches that carry the stamp. The figures are deterministic and have no interval."
)


def parity_table(run: Run) -> Table:
    """One row per configuration and framework: errors of the check, each with its tolerance, and the verdict."""
    points, axes = sort_points(run.points), leading_axes(run.points)
    rows, cells = [], []
    for point_id in points["point_id"].drop_duplicates():
        same = run.records_by_point[point_id]
        point, (verdict, stamp) = same[0].point, judge(record.parity for record in same)
        stamp = stamp or next((record.parity for record in same if record.parity), None)
        stamped = sum(record.parity is not None for record in same)
        fields = {"point_id": point_id, **point.model_dump(), "launches": len(same), "launches_stamped": stamped}
        rows.append(fields | {"verdict": verdict} | (stamp.model_dump() if stamp else {}))
        cells.append(
            [
                *(show_value(getattr(point, axis)) for axis in axes),
                *(show_figure(stamp, kind) for kind in KINDS),
                str(stamp.overflows) if stamp else NOT_AVAILABLE,
                str(stamped),
                f"{verdict} ({describe_worst(stamp)})" if stamp and verdict in (NOT_PROVEN, NOT_COMPARED) else verdict,
            ]
        )
    fields = ["point_id", *AXES, "launches", "launches_stamped", "verdict", *ParityStamp.model_fields]
    return Table(
        name="parity",
        title="Parity",
        constants=describe_constants(points, without=("framework",)),
        notes=(NOTE,),
        data=pd.DataFrame(rows, columns=fields),
        header=(*head_axes(axes), *HEADERS_OF_KINDS, "overflows", "n", "verdict"),
        is_number=(*are_numbers(axes, points), *[True] * len(KINDS), True, True, False),
        is_brief=(True,) * (len(axes) + len(KINDS) + 3),
        cells=cells,
    )


def show_figure(stamp: ParityStamp | None, kind: str) -> str:
    """`1.2e-07 ≤ 5e-07`, or `>`; what was not compared is a dash."""
    tolerance = getattr(stamp, f"{kind}_tolerance") if stamp else None
    if stamp is None or tolerance is None:
        return NOT_AVAILABLE
    error = getattr(stamp, f"{kind}_relative_error")
    if error is None:
        return "not finite"
    return f"{error:.1e} {'≤' if error <= tolerance else '>'} {tolerance:.0e}"
