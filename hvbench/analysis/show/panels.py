"""What all plots share: the look of a framework, panels in a grid, marks and labels, and writing a figure to files.

A framework has one colour, marker and line style everywhere, of colour-blind-safe palettes. Figures are built without
pyplot's global state, and the same records give the same SVG bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter
from matplotlib.transforms import Transform, offset_copy

from hvbench.analysis.frame.axes import KNOBS, order_values, plain_name
from hvbench.analysis.show.cells import show_axis
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.show.thinning import thin_figure
from hvbench.errors import UsageError
from hvbench.io.atomic import write_bytes
from hvbench.registry import FRAMEWORKS, SCRIPT, Framework, Look, describe_framework
from hvbench.spec.messages import shorten

GREY = "#555555"
MAX_PANELS = 12  # of a figure; the title says how many of how many configurations are shown
MAX_SMALL_PANELS = 24  # the same where panels are small
MAX_COLUMNS = 4  # where small panels fill up a grid
MAX_ENDS = 12  # launches of a framework whose end a panel marks with a cross and a word
LETTER_INCHES = 0.085  # a letter of a title or a tick, with some room
TICK_LETTERS = 12  # of a line of a tick's label
RC = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "figure.titlesize": 11, "figure.labelsize": 9,
    "legend.fontsize": 9, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
    "svg.hashsalt": "hvbench", "text.parse_math": False,
}  # fmt: skip


_own_style: ContextVar[Mapping[str, Any] | None] = ContextVar("own_style", default=None)


def drawing_settings() -> dict[str, Any]:
    """matplotlib's settings for everything that is drawn: its defaults, ours, then those of `own_style`.

    Never those of a user's matplotlibrc: TeX that is not installed would end a report, and every report looks the same.
    """
    return {**library_defaults(), **RC, **(_own_style.get() or {})}


def library_defaults() -> dict[str, Any]:
    """matplotlib's own defaults of all that is set otherwise in this process, but for the backend."""
    return {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith("backend") and matplotlib.rcParams[key] != value
    }


@contextmanager
def own_style(path: Path | None) -> Iterator[None]:
    """Draw with the settings of a matplotlib style file on top of ours; raises UsageError when it cannot be read."""
    settings: Mapping[str, Any] = {}
    if path is not None:
        try:
            keys = [
                line.partition("#")[0].partition(":")[0].strip()
                for line in path.read_text(encoding="utf-8").splitlines()
            ]
            if unknown := [key for key in keys if key and key not in matplotlib.rcParams]:
                raise ValueError(f"unknown setting {shorten(unknown[0])}")
            settings = matplotlib.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error).strip().splitlines()
            raise UsageError(
                f"{path}: not a matplotlib style: {reason[0] if reason else type(error).__name__}"
            ) from None
    token = _own_style.set({key: value for key, value in settings.items() if not key.startswith("backend")})
    try:
        yield
    finally:
        _own_style.reset(token)


@dataclass(frozen=True, kw_only=True)
class Style(Look):
    """The look of one framework, and what it is called."""

    label: str


# For frameworks that bring no look: what Okabe and Ito's palette has left, then three of Paul Tol's. More have to bring
# their own.
FREE_LOOKS = (
    Look(colour="#E69F00", page_colour="#a87400", dark_page_colour="#f0b840", marker="^", line="-."),
    Look(colour="#882255", page_colour="#882255", dark_page_colour="#d680b0", marker="D", line=":"),
    Look(colour="#332288", page_colour="#332288", dark_page_colour="#a79af0", marker="v", line=(0, (5, 1))),
    Look(colour="#999933", page_colour="#7d7d24", dark_page_colour="#c9c95a", marker="P", line=(0, (3, 1, 1, 1, 1, 1))),
)


def choose_styles(frameworks: Mapping[str, Framework]) -> dict[str, Style]:
    """Each framework's own look, or else the next free one."""
    free = iter(FREE_LOOKS)
    return {name: Style(label=each.title, **vars(each.look or next(free))) for name, each in frameworks.items()}


OF_SCRIPTS = Style(
    label=describe_framework(SCRIPT).title,
    colour="#117733",
    page_colour="#117733",
    dark_page_colour="#4fc078",
    marker="p",
    line=(0, (9, 1)),
)
STYLES = {**choose_styles({name: describe_framework(name) for name in FRAMEWORKS}), SCRIPT: OF_SCRIPTS}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One panel to draw: its title, and the axis values of the points that belong to it."""

    title: str
    chosen: dict[str, Any]


@contextmanager
def draw_panels(
    grid: list[list[Cell]], *, width: float, height: float, x_label: str = "", share_y: bool = True
) -> Iterator[tuple[Figure, list[tuple[Axes, dict[str, Any]]]]]:
    """A figure with a panel per cell, `width` x `height` inches each, `x_label` under the lowest of each column.

    What is drawn into it is thinned at the end where there is too much, and the figure's title says so.
    """
    rows, columns = len(grid), max(len(row) for row in grid)
    with matplotlib.rc_context(drawing_settings()):
        figure = Figure(figsize=(max(5.0, 0.6 + width * columns), 1.1 + height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=share_y, squeeze=False)
        panels = []
        for row, column in product(range(rows), range(columns)):
            panel = axes[row][column]
            if column >= len(grid[row]):
                panel.set_axis_off()
                continue
            panel.set_title(wrap_title(grid[row][column].title, inches=width), loc="left")
            if row + 1 == rows or column >= len(grid[row + 1]):
                panel.set_xlabel(x_label)
            panels.append((panel, grid[row][column].chosen))
        yield figure, panels
        for panel, _ in panels:
            write_plain_powers(panel)
        thin_figure(figure)


def write_plain_powers(panel: Axes) -> None:
    """Ticks of logarithmic axes as plain numbers, and none between them named, where nothing else was chosen: the library's own names are
    mathematical text, which is drawn as it is written here (`text.parse_math`)."""
    for axis in (panel.xaxis, panel.yaxis):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if isinstance(axis.get_minor_formatter(), LogFormatter):
            axis.set_minor_formatter(NullFormatter())


def wrap_title(title: str, *, inches: float) -> str:
    """The title in lines that a panel of this width bears: a longer one would run into the next panel's, or make room for itself."""
    most = int(inches / LETTER_INCHES)
    return "\n".join(textwrap.fill(line, most, break_long_words=False) for line in title.splitlines())


def wrap_label(text: str) -> str:
    """A value's name in short lines, as a tick bears them beside its neighbours: broken at spaces and behind underscores."""
    return textwrap.fill(text.replace("_", "_ "), TICK_LETTERS, break_long_words=False).replace("_ ", "_")


def render_figure(figure: Figure, *, kind: str) -> bytes:
    """`figure` as `svg` or `png` bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(drawing_settings()):
        if figure.get_layout_engine() is not None:
            _lay_out(figure)
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date" if kind == "svg" else "Software": None})
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Lay out once: as long as a figure has an engine, every later drawing, one per file format, is done twice."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    with matplotlib.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.svg and `stem`.png; the paths written. Raises OSError."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, render_figure(figure, kind=path.suffix[1:]), durable=False)
    return paths


def fill_grid(cells: Sequence[Cell], *, columns: int) -> list[list[Cell]]:
    """The cells in rows of `columns`, the last row as long as it gets."""
    return [list(cells[start : start + columns]) for start in range(0, len(cells), columns)]


def count_shown(shown: Sequence[Any], choices: Sequence[Any]) -> str:
    """A line below a figure's title that says how many configurations it leaves out, or nothing."""
    return "" if len(shown) == len(choices) else f"\nfirst {len(shown)} of {len(choices)} configurations"


def combine_axes(points: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Values of the axes `names` that occur together, in table order; one empty choice where there is no name."""
    if not names:
        return [{}]
    places = [{value: place for place, value in enumerate(order_values(name, points[name]))} for name in names]
    present = {make_key(row) for row in points[names].drop_duplicates().itertuples(index=False, name=None)}
    ordered = sorted(present, key=lambda choice: [place[value] for place, value in zip(places, choice, strict=True)])
    return [dict(zip(names, choice, strict=True)) for choice in ordered]


def make_key(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values of several axes as a key that can be compared: None where one is missing."""
    return tuple(None if pd.isna(value) else value for value in values)


def choose_rows(frame: pd.DataFrame, chosen: dict[str, Any]) -> pd.DataFrame:
    """The rows of `frame` whose columns have the `chosen` values (None: missing)."""
    keep = pd.Series(True, index=frame.index)
    for name, value in chosen.items():
        keep &= frame[name].isna() if value is None else (frame[name] == value).fillna(False).astype(bool)
    return frame[keep]


def emulated_precisions(points: pd.DataFrame) -> frozenset[str]:
    """The precisions that some launch did not multiply in."""
    return frozenset(points.loc[points["is_emulated"].fillna(False), "precision"])


def describe_choice(chosen: dict[str, Any], *, emulated: frozenset[str]) -> str:
    """Axis values as a panel's title, two to a line so that it is not wider than the panel."""
    parts = [describe_value(axis, value, emulated=emulated) for axis, value in chosen.items()]
    return "\n".join(", ".join(parts[i : i + 2]) for i in range(0, len(parts), 2))


def describe_value(axis: str, value: Any, *, emulated: frozenset[str]) -> str:
    """One axis value in words, such as `micro-batch 8`; a precision among `emulated` says so."""
    if axis == "framework" and value in STYLES:
        return STYLES[value].label
    text = label_text(show_axis(axis, value, is_emulated=value in emulated))
    knob = KNOBS.get(axis)  # None: no field but what follows from several, or a script's own
    return knob.in_words(text) if knob and knob.in_words else f"{plain_name(axis)} {text}"


def is_plural(axis: str, value: Any) -> bool:
    """Whether the words of a value are a plural: `2 ranks are faster`, everything else `is`."""
    return axis == "world_size" and value != 1


def label_text(text: str) -> str:
    """What the figure's font can surely draw, at a length that a label can bear."""
    return clean_text(text, limit=40).replace("–", "-").encode("ascii", "replace").decode()


def format_large(value: float, _: object = None) -> str:
    """A tick label: 40k, 1.2M, or the number itself."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def join_curves(x: pd.Series, y: pd.Series, *, launch: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The curves of launches that follow each other as one line that breaks between them: one artist for all of them."""
    number, places, values = launch.to_numpy(), x.to_numpy(dtype=float), y.to_numpy(dtype=float)
    ends = np.flatnonzero(number[1:] != number[:-1]) + 1
    # Missing values at the last place of one and the first of the next: also a line of steps reaches both.
    between = np.column_stack([places[ends - 1], places[ends]]).ravel()
    return np.insert(places, np.repeat(ends, 2), between), np.insert(values, np.repeat(ends, 2), np.nan)


def mark_ends(
    panel: Axes, ends: Sequence[tuple[tuple[float, float], str]], *, transform: Transform, colour: str
) -> None:
    """A cross with its text at the place of each of `ends`; where there are many, at the first ones, with a count."""
    shown = ends[:MAX_ENDS]
    for index, (place, text) in enumerate(shown):
        more = f", and {len(ends) - len(shown):,} more" if index + 1 == len(shown) < len(ends) else ""
        mark_end(panel, place, transform=transform, text=f"{text}{more}", colour=colour)


def mark_end(panel: Axes, place: tuple[float, float], *, transform: Transform, text: str, colour: str) -> None:
    """A cross at `place`, with `text` rising above it."""
    panel.plot(*([value] for value in place), "x", markersize=6, color=colour, transform=transform, zorder=4)
    # Not in the layout: a text that sticks out must not push the panels together.
    offset = {"xytext": (0, 6), "textcoords": "offset points", "rotation": 90, "ha": "center", "va": "bottom"}
    panel.annotate(text, place, xycoords=transform, fontsize=8, color=colour, in_layout=False, **offset)


def shift_points(transform: Transform, panel: Axes, *, x: float = 0.0, y: float = 0.0) -> Transform:
    """`transform`, then (x, y) typographic points: a distance on paper, whatever the axes' scales."""
    return offset_copy(transform, panel.get_figure(), x=x, y=y, units="points")


def count_statuses(statuses: pd.Series) -> str:
    """How launches ended, in a few words: `oom`, or `2 timeout, oom`."""
    counts = statuses.value_counts(sort=False).items()
    return ", ".join(status if count == 1 else f"{count} {status}" for status, count in counts)


def list_frameworks(points: pd.DataFrame) -> list[str]:
    """The frameworks that occur, in their fixed order."""
    return order_values("framework", points["framework"])


def place_beside(index: int, *, of: int) -> float:
    """Where the framework with this index stands beside the others, in steps; two steps apart leave room for launches."""
    return (index - (of - 1) / 2) * (1 if of <= 2 else 2)


def add_legend(figure: Figure, frameworks: list[str], extra: list[Any]) -> None:
    """A legend below the panels, where it covers no data. What is a script's alone needs no name."""
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.line, markersize=5, label=style.label)
        for style in map(STYLES.__getitem__, frameworks if frameworks != [SCRIPT] else [])
    ]
    if handles + extra:
        widths = [0.6 + 0.075 * len(str(handle.get_label())) for handle in [*handles, *extra]]  # inches
        fit = sum(widths) <= figure.get_figwidth()
        columns = len(widths) if fit else max(1, int(figure.get_figwidth() / max(widths)))
        figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=min(columns, len(handles + extra)))


def legend_mark(label: str, **look: Any) -> Line2D:
    """A grey legend entry for something that all frameworks share."""
    return Line2D([], [], **{"color": GREY, "linestyle": "none", "label": label, **look})


def finite_max(*columns: pd.Series) -> float | None:
    """The largest finite value of all columns, or None."""
    values = np.concatenate([column.astype("float64").to_numpy() for column in columns])
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else None
