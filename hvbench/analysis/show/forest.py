"""Contrasts -> a forest plot: dot and interval around "no difference", one row a configuration, and their mean as a row of its own.

What is called faster, equal or open was called before (`analysis.stats.contrasts`); this draws it. Ratios stand on a logarithmic axis
around 1, differences on a linear one around 0. A row's label and figures stand above its interval, so that the plot can
be as narrow as a phone.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.panels import GREY, Cell, draw_panels, legend_mark
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.show.tips import NotedLine
from hvbench.analysis.stats.contrasts import Call

BAND = "#eeeeee"  # what counts as equal
INK = "#111111"
MOST_ROWS = 40
WHOLE = 56  # letters of a line of the title
USUAL_TITLE = 3  # lines of it, which a figure has room for
HALF = 32  # letters of a line of a side's words, which have half of the width
LETTERS = 34  # of a line of a label, which has its figures beside it
WIDTH = 4.4  # inches
ROW = 0.4  # inches; a second line of a label takes LINE
LINE = 0.16
ABOVE = 6  # typographic points from an interval to its label
LEAST_REACH = 1.5  # an axis shows at least so many times the band
ROOM = 1.12  # between the outermost dot and the axis' end
TICK_ROOM = 0.12  # of the axis, from the middle of one tick's label to that of the next
LONG_INTERVAL = 2.5  # an interval may widen the axis to so many times what the dots need; beyond, it leaves the picture


@dataclass(frozen=True, kw_only=True)
class Side:
    """What it means to stand on one side of "no difference", and the look of a row that is called so."""

    words: str  # `TensorFlow is faster`
    colour: str = INK
    marker: str = "o"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One contrast: a ratio, or a difference, its corrected interval where it has one, over so many rounds (or seeds)."""

    label: str
    value: float
    low: float | None
    high: float | None
    n: int
    call: Call  # FASTER: it is called to be on the right side; SLOWER: on the left
    side: Side | None = (
        None  # the look of this row, whatever it is called; None: that of the side that it is called to be on
    )


@dataclass(frozen=True, kw_only=True)
class Forest:
    """A family of contrasts to be drawn. `title` is the question, `quantity` what is divided by what."""

    name: str  # file stem
    title: str
    quantity: str
    left: Side
    right: Side
    rows: Sequence[Effect]
    mean: Effect | None = None
    equal_within: float = 0.03  # of a ratio, or in the unit of the differences
    unit: str = ""  # of differences; empty: ratios
    counted: str = "round"

    @property
    def is_ratio(self) -> bool:
        """Whether 1 is "no difference", and not 0."""
        return not self.unit


def draw_forest(forest: Forest) -> Figure:
    """The figure; its title is the question, and each mark's tip says the row in full."""
    shown = [*([forest.mean] if forest.mean else []), *forest.rows[:MOST_ROWS]]
    lines = max((len(_wrap(effect.label)) for effect in shown), default=1)
    height = ROW + LINE * (lines - 1)
    title = [
        part for line in f"{forest.title}\n{_note(forest, shown)}".splitlines() for part in textwrap.wrap(line, WHOLE)
    ]
    more = len(title) - USUAL_TITLE + max(len(_in_half(side.words)) for side in (forest.left, forest.right)) - 1
    inches = height * (len(shown) + 0.3) + LINE * max(0, more)
    with draw_panels([[Cell(title="", chosen={})]], width=WIDTH, height=inches) as (figure, panels):
        panel = panels[0][0]
        low, high = choose_reach(forest)
        if forest.is_ratio:
            panel.set_xscale("log")
        panel.set_xlim(low, high)
        _draw_axis(panel, forest)
        for place, effect in enumerate(shown):
            _draw_row(panel, forest, effect, place=place, is_mean=effect is forest.mean)
        panel.set_ylim(len(shown) - 0.6, -0.9)
        if forest.mean:
            panel.axhline(0.2 * ROW / height + 0.03, color="#b0b0b0", linewidth=0.8)
        figure.suptitle("\n".join(title))
        equal = Patch(facecolor=BAND, edgecolor="#b0b0b0", linewidth=0.5, label=_name_band(forest))
        is_any_open = any(effect.call is Call.OPEN for effect in shown)
        hollow = [legend_mark("open", marker="o", markerfacecolor="#ffffff")] if is_any_open else []
        figure.legend(handles=[*hollow, equal], loc="outside lower center", ncols=2)
    return figure


def choose_reach(forest: Forest) -> tuple[float, float]:
    """The ends of the axis: all dots and the band, and the intervals as far as they do not press the dots together."""
    effects = [*forest.rows, *([forest.mean] if forest.mean else [])]
    to, back = (math.log, math.exp) if forest.is_ratio else (float, float)
    band = math.log1p(forest.equal_within) if forest.is_ratio else forest.equal_within
    least = LEAST_REACH * band
    dots = [to(effect.value) for effect in effects if _is_drawable(effect.value, forest)]
    widest = LONG_INTERVAL * max([least, *map(abs, dots)])
    ends = [to(end) for effect in effects for end in (effect.low, effect.high) if _is_drawable(end, forest)]
    inside = [min(max(end, -widest), widest) for end in ends]
    return tuple(back(ROOM * pick([sign * least, *dots, *inside])) for sign, pick in ((-1, min), (1, max)))


def say_effect(effect: Effect, forest: Forest) -> str:
    """`micro-batch 8, fp32: 1.062 (95 % interval 1.039 to 1.084, 5 rounds), TensorFlow is faster`: what a row's mark says."""
    return f"{effect.label}: {_say_figures(effect, forest)}, {_say_call(effect, forest)}"


def _say_figures(effect: Effect, forest: Forest) -> str:
    rounds = f"{effect.n} {forest.counted}{'s' * (effect.n != 1)}"
    figures = ".3f" if forest.is_ratio else "+.4f"
    value = f"{effect.value:{figures}}{_unit(forest)}"
    if effect.low is None or effect.high is None:
        return f"{value} ({rounds}, no interval)"
    return f"{value} ({INTERVAL} {effect.low:{figures}} to {effect.high:{figures}}, {rounds})"


def _say_call(effect: Effect, forest: Forest) -> str:
    called = {Call.FASTER: forest.right.words, Call.SLOWER: forest.left.words, Call.EQUAL: _name_band(forest)}
    return called.get(effect.call, "open")


def _unit(forest: Forest) -> str:
    return f" {forest.unit}" if forest.unit else ""


def _name_band(forest: Forest) -> str:
    return (
        f"within {100 * forest.equal_within:g} %"
        if forest.is_ratio
        else f"within {forest.equal_within:.1g} {forest.unit}"
    )


def _note(forest: Forest, shown: Sequence[Effect]) -> str:
    counts = sorted({effect.n for effect in shown})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = f"{many} {forest.counted}{'s' * (counts != [1])}" if counts else "nothing to compare"
    note = f"{forest.quantity}\n{words}; bars: {INTERVAL}, corrected for all rows"
    return note if len(forest.rows) <= MOST_ROWS else f"{note}\nfirst {MOST_ROWS} of {len(forest.rows)} configurations"


# --- drawing ---


def _draw_axis(panel: Axes, forest: Forest) -> None:
    none = 1.0 if forest.is_ratio else 0.0
    band = forest.equal_within
    panel.axvspan(1 / (1 + band) if forest.is_ratio else -band, none + band, color=BAND, linewidth=0, zorder=0)
    panel.axvline(none, color=GREY, linewidth=1.0, zorder=1)
    panel.yaxis.set_visible(False)
    panel.spines["left"].set_visible(False)
    low, high = panel.get_xlim()
    places = choose_ticks(low, high) if forest.is_ratio else None
    if places is not None:
        panel.xaxis.set_major_locator(FixedLocator(places))
        panel.xaxis.set_major_formatter(
            FixedFormatter([show_ratio(place, is_factor=high / low > 4) for place in places])
        )
        panel.xaxis.set_minor_locator(NullLocator())
    below = {"xycoords": "axes fraction", "textcoords": "offset points", "xytext": (0, -20), "va": "top"}
    panel.annotate("\n".join(_in_half(f"← {forest.left.words}")), (0.0, 0.0), ha="left", **below)
    panel.annotate("\n".join(_in_half(f"{forest.right.words} →")), (1.0, 0.0), ha="right", **below)


def choose_ticks(low: float, high: float) -> list[float]:
    """Ratios at which an axis from `low` to `high` has a tick: 1, and round per cent or factors on both sides, seven at most."""
    if high / low > 4:
        places = [m * 10.0**power for power in range(-3, 4) for m in (1, 2, 5)]
        return [place for place in places if low <= place <= high]
    for step in (1, 2, 5, 10, 20, 50, 100):
        first, last = math.ceil(100 * (low - 1) / step - 1e-9), math.floor(100 * (high - 1) / step + 1e-9)
        if last - first < 7:
            break
    return thin([1 + step * count / 100 for count in range(first, last + 1)], least=TICK_ROOM * math.log(high / low))


def thin(places: Sequence[float], *, least: float) -> list[float]:
    """Those of ascending ratios, 1 among them, whose logarithms are at least so far apart, from 1 outwards: labels stand side by side."""
    kept = [1.0]
    for place in reversed([place for place in places if place < 1 - 1e-9]):
        if math.log(kept[0] / place) >= least:
            kept.insert(0, place)
    for place in [place for place in places if place > 1 + 1e-9]:
        if math.log(place / kept[-1]) >= least:
            kept.append(place)
    return kept


def show_ratio(ratio: float, *, is_factor: bool) -> str:
    """`+5 %`, or `2×` on an axis of factors; `equal` in the middle."""
    if abs(ratio - 1) < 1e-9:
        return "equal"
    return f"{ratio:g}×" if is_factor else f"{100 * (ratio - 1):+.0f} %".replace("-", "\N{MINUS SIGN}")


def _draw_row(panel: Axes, forest: Forest, effect: Effect, *, place: int, is_mean: bool) -> None:
    look = effect.side or {Call.FASTER: forest.right, Call.SLOWER: forest.left}.get(
        effect.call, Side(words="", colour=INK)
    )
    fill = "#ffffff" if effect.call is Call.OPEN else look.colour
    weight = "bold" if is_mean else "normal"
    text = {"fontsize": 9, "va": "bottom", "weight": weight, "in_layout": False, "linespacing": 1.05}
    text["bbox"] = {
        "facecolor": "#ffffff",
        "edgecolor": "none",
        "alpha": 0.75,
        "pad": 0.8,
    }  # the middle line ends behind it
    text |= {"xycoords": panel.get_yaxis_transform(), "textcoords": "offset points", "xytext": (0, ABOVE)}
    panel.annotate("\n".join(_wrap(effect.label)), (0.0, place), ha="left", **text)
    panel.annotate(show_figures(effect, forest), (1.0, place), ha="right", **text)
    low, high = panel.get_xlim()
    if effect.low is not None and effect.high is not None:
        ends = [min(max(end, low), high) for end in (effect.low, effect.high)]
        panel.plot(ends, [place, place], color=look.colour, linewidth=2.0 if is_mean else 1.4, zorder=2)
        for end, beyond, arrow in ((low, effect.low < low, "<"), (high, effect.high > high, ">")):
            if beyond:
                panel.plot([end], [place], arrow, color=look.colour, markersize=5, clip_on=False, zorder=2)
    if _is_drawable(effect.value, forest):
        marker = "D" if is_mean else look.marker
        mark = NotedLine(
            [effect.value], [place], notes=[say_effect(effect, forest)], marker=marker, markersize=7, linestyle="none",
            color=look.colour, markerfacecolor=fill, markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
        panel.add_line(mark)


def show_figures(effect: Effect, forest: Forest) -> str:
    """`+6.2 % (3.9 to 8.4)` above a row; of ratios beyond a factor of two `2.31× (1.90 to 2.80)`."""
    values = [effect.value, *(end for end in (effect.low, effect.high) if end is not None)]
    if not forest.is_ratio:
        texts = [f"{value:+.3f}" for value in values]
        unit = _unit(forest)
    elif max(effect.value, 1 / effect.value if effect.value else math.inf) >= 2:
        texts, unit = [f"{value:.2f}" for value in values], "×"
    else:
        texts, unit = [f"{100 * (value - 1):+.1f}" for value in values], " %"
    texts = [text.replace("-", "\N{MINUS SIGN}") for text in texts]
    behind = f" ({texts[1]} to {texts[2]})" if len(texts) == 3 else ""
    return f"{texts[0]}{unit}{behind}"


def _in_half(words: str) -> list[str]:
    """What stands below one side of the axis, in lines."""
    return textwrap.wrap(words, HALF)


def _wrap(label: str) -> list[str]:
    """In lines that break behind commas."""
    whole = clean_text(label, limit=2 * LETTERS).replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(whole, LETTERS)] or [""]


def _is_drawable(value: float | None, forest: Forest) -> bool:
    return value is not None and math.isfinite(value) and (value > 0 or not forest.is_ratio)
