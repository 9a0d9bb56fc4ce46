"""A figure with many samples -> the same figure with so few marks that a file and a page can bear it.

Of neighbouring marks the lowest and the highest stay, so that no outlier is lost; which marks stay depends on the data
alone. The figure's title says how many of how many are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

MAX_MARKS = 4_000  # of a figure: half a megabyte of a page, with the text that each mark shows
MAX_PANEL_MARKS = 800  # of one panel: two for each point (1/72 inch) of a wide one
VERTICES_PER_MARK = 10  # so many vertices of a line take the bytes of one mark
MIN_CURVE = 20  # vertices: where more curves than fit at this length share a line, some are left out
NO_MARKER = (None, "None", "none", "", " ")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How many of how many marks (or curves) are drawn."""

    kept: int
    total: int

    @property
    def is_all(self) -> bool:
        """Whether nothing was left out."""
        return self.kept == self.total

    def describe(self, noun: str) -> str:
        """`800 of 20,003 marks drawn, 1 in 25`."""
        return f"{self.kept:,} of {self.total:,} {noun} drawn, 1 in {self.total / self.kept:.0f}"


def thin_figure(figure: Figure) -> None:
    """Leave out marks and vertices of lines above the caps, and say so in lines below the figure's title."""
    marks, curves = _thin_marks(figure), _thin_curves(figure)
    notes = [] if marks.is_all else [marks.describe("marks")]
    notes += [] if curves.is_all else [curves.describe("curves")]
    if notes:
        kept = "kept: the lowest and highest of their neighbours"
        figure.suptitle("\n".join([figure.get_suptitle(), *notes, *([] if marks.is_all else [kept])]))


def choose_extremes(values: np.ndarray, *, most: int) -> np.ndarray:
    """Indices, ascending, of the first and last of `values` and of the lowest and highest of equally long stretches.

    At most `most` of them are of finite values (`most` >= 4). A stretch with a missing value keeps its first one as well:
    a line breaks there.
    """
    values = np.asarray(values, dtype=float)
    if int(np.isfinite(values).sum()) <= most:
        return np.arange(values.size)
    kept = {0, values.size - 1}
    for stretch in np.array_split(np.arange(1, values.size - 1), (most - 2) // 2):
        finite = stretch[np.isfinite(values[stretch])]
        missing = stretch[~np.isfinite(values[stretch])]
        if finite.size:
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
        if missing.size:
            kept.add(int(missing[0]))
    return np.array(sorted(kept))


def share_out(wanted: Sequence[int], *, total: int) -> int:
    """The largest cap that, put on each of `wanted`, keeps their sum within `total`."""
    left, cap = total, 0
    for index, count in enumerate(sorted(wanted)):
        cap = left // (len(wanted) - index)
        if count > cap:
            return cap
        left -= count
    return max([cap, *wanted])


# --- marks ---


def _thin_marks(figure: Figure) -> Drawn:
    lines = {panel: [line for line in panel.lines if line.get_marker() not in NO_MARKER] for panel in figure.axes}
    counts = {panel: sum(map(_count_marks, found)) for panel, found in lines.items()}
    total = sum(counts.values())
    cap = min(MAX_PANEL_MARKS, share_out(list(counts.values()), total=MAX_MARKS))
    for panel, found in lines.items():
        if counts[panel] > cap:
            each = max(4, share_out([_count_marks(line) for line in found], total=cap))
            for line in found:
                _keep_marks(line, most=each)
    return Drawn(kept=sum(_count_marks(line) for found in lines.values() for line in found), total=total)


def _count_marks(line: Line2D) -> int:
    return int(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum())


def _keep_marks(line: Line2D, *, most: int) -> None:
    """Neighbours are neighbours along the x axis: launches that share a panel share its stretches."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    order = np.argsort(x, kind="stable")
    kept = np.sort(order[choose_extremes(y[order], most=most)])
    line.set_data(x[kept], y[kept])


# --- curves ---


def _thin_curves(figure: Figure) -> Drawn:
    """Shorten every line without marks; the curves of a line are its parts between missing values."""
    lines: dict[Axes, list[Line2D]] = {
        panel: [line for line in panel.lines if line.get_marker() in NO_MARKER] for panel in figure.axes
    }
    counts = {panel: sum(len(line.get_ydata()) for line in found) for panel, found in lines.items()}
    most, panel_most = VERTICES_PER_MARK * MAX_MARKS, VERTICES_PER_MARK * MAX_PANEL_MARKS
    cap = min(panel_most, share_out(list(counts.values()), total=most))
    kept = total = 0
    for panel, found in lines.items():
        if counts[panel] > cap:
            each = max(MIN_CURVE, share_out([len(line.get_ydata()) for line in found], total=cap))
            for line in found:
                drawn = _keep_vertices(line, most=each)
                kept, total = kept + drawn.kept, total + drawn.total
    return Drawn(kept=kept, total=total)


def _keep_vertices(line: Line2D, *, most: int) -> Drawn:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    breaks = np.flatnonzero(~np.isfinite(y))
    curves = [part for part in np.split(np.arange(y.size), breaks) if np.isfinite(y[part]).any()]
    if y.size <= most:
        return Drawn(kept=len(curves), total=len(curves))
    step = -(-len(curves) * MIN_CURVE // most)  # rounded up
    shown = curves[::step]
    each = max(MIN_CURVE, share_out([part.size for part in shown], total=most))
    kept = np.concatenate([part[choose_extremes(y[part], most=each)] for part in shown])
    line.set_data(x[kept], y[kept])
    return Drawn(kept=len(shown), total=len(curves))
