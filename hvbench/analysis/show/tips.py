"""A panel's marks and bars -> what a reader is told at each of them, and that text in the panel's SVG.

The texts are computed from matplotlib's artists, whose data they name, and attached to the elements that matplotlib
writes for them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from hvbench.analysis.show.cells import format_number
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.thinning import NO_MARKER

SVG = "{http://www.w3.org/2000/svg}"
POINTS_PER_INCH = 72
CELLS_PER_POINT = 10  # marks are found by the cell of a grid that they lie in


@dataclass(frozen=True, kw_only=True, slots=True)
class Tip:
    """The text of one mark, and where the mark is in the SVG: points, y downwards. A bar is known by its name alone."""

    text: str
    x: float = 0.0
    y: float = 0.0


class NotedLine(Line2D):
    """Marks that bring their tips: `notes`, one a mark, where place and value alone would not say what it shows."""

    def __init__(self, *args: Any, notes: Sequence[str], **look: Any) -> None:
        super().__init__(*args, **look)
        self.notes = tuple(notes)


def describe_panel(panel: Axes, quantity: str, *, prefix: str) -> dict[str, list[Tip]]:
    """Name every line with marks and every bar of a panel, and say what each shows.

    Args:
        panel: its artists get the names.
        quantity: what the y axis shows, where the axis has no label of its own.
        prefix: of the names, which have to be unique on a page.

    Returns:
        Name of the artist -> its tips, in the order of its data.
    """
    quantity = panel.get_ylabel() or quantity
    labels = fixed_labels(panel.xaxis)
    tips = {}
    for index, line in enumerate(line for line in panel.lines if line.get_marker() not in NO_MARKER):
        name = f"{prefix}-line{index}"
        line.set_gid(name)
        tips[name] = _describe_line(panel, line, labels=labels, quantity=quantity)
    groups = [group for group in panel.containers if isinstance(group, BarContainer)]
    bars = [(group, bar) for group in groups for bar in group.patches]
    for index, (group, bar) in enumerate(bars):
        name = f"{prefix}-bar{index}"
        bar.set_gid(name)
        tips[name] = [Tip(text=_describe_bar(panel, group, bar, quantity=quantity))]
    return tips


def attach_tips(tree: ElementTree.Element, tips: Mapping[str, list[Tip]]) -> None:
    """Add a `<title>` to each mark of the named groups: browsers show it on hover, even without scripts.

    Of a line matplotlib writes the marks inside the picture, and some more where the line leaves it: so a mark is known by
    its place. Marks in one cell of the grid have their texts in the order of the data.
    """
    for group in tree.iter(f"{SVG}g"):
        known = tips.get(group.get("id") or "")
        if not known:
            continue
        marks = list(group.iter(f"{SVG}use"))
        if not marks:
            _add_title(group, known[0].text)
        texts: dict[tuple[int, int], deque[str]] = defaultdict(deque)
        for tip in known:
            texts[_cell(tip.x, tip.y)].append(tip.text)
        for mark in marks:
            column, row = _cell(float(mark.get("x", 0)), float(mark.get("y", 0)))
            # Rounding may have moved it into the next cell.
            near = [(column + right, row + down) for right in (0, -1, 1) for down in (0, -1, 1)]
            if cell := next((cell for cell in near if texts.get(cell)), None):
                _add_title(mark, texts[cell].popleft())


def _cell(x: float, y: float) -> tuple[int, int]:
    return round(CELLS_PER_POINT * x), round(CELLS_PER_POINT * y)


def _describe_line(panel: Axes, line: Line2D, *, labels: Mapping[float, str], quantity: str) -> list[Tip]:
    data = np.asarray(line.get_xydata(), dtype=float)
    places = line.get_transform().transform(data)
    height = panel.get_figure().get_figheight() * POINTS_PER_INCH
    who, axis = _name_of(line), panel.get_xlabel()
    tips = []
    notes = line.notes if isinstance(line, NotedLine) else (None,) * len(data)
    for (place_x, place_y), (x, y), note in zip(places.tolist(), data.tolist(), notes, strict=True):
        if np.isfinite(place_x) and np.isfinite(place_y):
            where = _value_text(labels, x)
            parts = [who, f"{axis}: {where}" if axis else where, f"{_number(y)} {quantity}"]
            tips.append(Tip(text=note or ", ".join(filter(None, parts)), x=place_x, y=height - place_y))
    return tips


def _describe_bar(panel: Axes, group: BarContainer, bar: Any, *, quantity: str) -> str:
    is_flat = group.orientation == "horizontal"
    middle = bar.get_y() + bar.get_height() / 2 if is_flat else bar.get_x() + bar.get_width() / 2
    length = bar.get_width() if is_flat else bar.get_height()
    where = _value_text(fixed_labels(panel.yaxis if is_flat else panel.xaxis), float(middle))
    unit = panel.get_xlabel() if is_flat else quantity
    label = str(group.get_label())
    return ", ".join(filter(None, ["" if label.startswith("_") else label, where, f"{_number(length)} {unit}"]))


def _name_of(artist: Any) -> str:
    """The framework that has the artist's colour, or the artist's own label."""
    colour = to_hex(artist.get_color())
    label = str(artist.get_label())
    own = "" if label.startswith("_") else label
    return next((style.label for style in STYLES.values() if style.colour.lower() == colour), own)


def _number(value: float) -> str:
    return format_number(value) if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"


def fixed_labels(axis: Axis) -> dict[float, str]:
    """Position -> text of ticks whose texts are given; empty for an axis of numbers."""
    locator = axis.get_major_locator()
    if not isinstance(locator, FixedLocator):
        return {}
    places = [float(place) for place in locator.locs]
    return dict(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def _value_text(labels: Mapping[float, str], value: float) -> str:
    near = min(labels, key=lambda place: abs(place - value), default=None)
    return labels[near] if near is not None and abs(near - value) < 0.5 else f"{value:,g}"


def _add_title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element(f"{SVG}title")
    title.text = text
    element.insert(0, title)
