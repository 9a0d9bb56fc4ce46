"""Where the value axis of dots begins: at 0, or above it where differences would not be seen else, with a break that says so.

Bars always begin at 0, since their length is the value; a dot's place is read against its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

NARROW = 0.5  # everything lies above this share of the highest value: from 0 on, more than half of the picture would be empty
MARGIN = 0.08  # of what is shown, above and below
SLASH = 0.015  # of the panel
BREAK_NOTE = "the axis is broken: it does not begin at 0"


def choose_floor(values: Iterable[float], *, top: float) -> float:
    """Where an axis up to `top` begins, for values and ends of intervals: 0, or a little below the lowest in a narrow band of high ones."""
    known = [value for value in values if math.isfinite(value)]
    lowest = min(known, default=0.0)
    if lowest <= NARROW * top:
        return 0.0
    return lowest - max(MARGIN * (top - lowest), 0.01 * top)


def limit_values(figure: Figure, panels: Sequence[Axes], values: Iterable[float], *, top: float) -> None:
    """Let value axes end above `top` and begin where `choose_floor` says; a break is drawn, and named below the figure's title."""
    floor = choose_floor(values, top=top)
    for panel in panels:
        panel.set_ylim(floor, top + MARGIN * (top - floor))
        if floor:
            draw_break(panel)
    if floor:
        figure.suptitle(f"{figure.get_suptitle()}\n{BREAK_NOTE}")


def draw_break(panel: Axes) -> None:
    """A gap in the foot of the value axis, between two slashes."""
    look = {"transform": panel.transAxes, "clip_on": False}
    panel.plot([0, 0], [0.035, 0.065], color="#ffffff", linewidth=3.0, zorder=3, **look)
    for height in (0.035, 0.065):
        ends = ([-SLASH, SLASH], [height - SLASH, height + SLASH])
        panel.plot(*ends, color="#000000", linewidth=1.0, zorder=4, **look)
