"""What stands in a cell of the site's own tables: text, what it sorts by, a link; and numbers with their points below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from hvbench.analysis.frame.metrics import Metric
from hvbench.analysis.show.cells import NOT_AVAILABLE, format_number
from hvbench.analysis.stats.estimates import Estimate

POINTS_BELOW_EACH_OTHER = "number"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell. `pad` are digits that a column's longest number has more: they take their room and are not seen."""

    text: str = ""
    value: float | None = None  # what the cell sorts by
    style: str = ""
    pad: str = ""
    href: str = ""
    more: str = ""  # quiet, behind the text
    drawing: Markup = Markup("")


@dataclass(frozen=True, kw_only=True)
class Column:
    """What heads a column."""

    header: str
    is_number: bool = False
    hint: str = ""


def show_centre(estimate: Estimate | None, metric: Metric) -> Cell:
    """The centre in the metric's shown unit."""
    if estimate is None:
        return Cell(text=NOT_AVAILABLE, style="number")
    value = estimate.centre * metric.scale
    return Cell(text=format_number(value), value=value, style="number")


def show_interval(estimate: Estimate | None, metric: Metric) -> Cell:
    """The interval in the metric's shown unit, or how many launches there were."""
    if estimate is None:
        return Cell(text=NOT_AVAILABLE, style="number quiet")
    if estimate.low is None or estimate.high is None:
        return Cell(text=f"n = {estimate.n}", style="number quiet")
    low, high = (format_number(end * metric.scale) for end in (estimate.low, estimate.high))
    return Cell(text=f"{low} to {high}", value=estimate.low, style="number quiet")


def align(rows: Sequence[Sequence[Cell]], columns: Sequence[Column]) -> list[list[Cell]]:
    """The rows with their numbers padded, so that the points of each column stand below each other."""
    aligned = [list(row) for row in rows]
    for index, column in enumerate(columns):
        if column.is_number:
            longest = max((count_decimals(row[index]) for row in aligned), default=0)
            for row in aligned:
                row[index] = pad(row[index], longest)
    return aligned


def count_decimals(cell: Cell) -> int:
    """Digits behind the point of a plain number; 0 of anything else."""
    return len(cell.text.partition(".")[2]) if is_plain(cell) else 0


def pad(cell: Cell, decimals: int) -> Cell:
    """A plain number with as many places for digits behind the point."""
    if not is_plain(cell) or not decimals:
        return cell
    lacking = decimals - count_decimals(cell)
    return replace(cell, pad=("" if "." in cell.text else ".") + "0" * lacking)


def is_plain(cell: Cell) -> bool:
    """Whether a cell's text is one number and nothing else."""
    return cell.value is not None and cell.text.replace(",", "").replace(".", "", 1).lstrip("+-").isdigit()
