"""matplotlib figures -> inline SVG for a page: a picture per panel, real text, themed colours, exact figures on hover.

Every panel becomes a picture of its own, so that a page can lay them out side by side or one below the other. Colours
that have a meaning become the page's CSS variables, which is how one drawing serves a light and a dark scheme. Works on
any figure: nothing here knows what is plotted.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hvbench.analysis.show.panels import LETTER_INCHES, drawing_settings, wrap_title
from hvbench.analysis.show.svg import adapt
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.show.tips import POINTS_PER_INCH, NotedLine, Tip, attach_tips, describe_panel, fixed_labels
from hvbench.analysis.show.value_axis import BREAK_NOTE

PANEL_INCHES = (3.0, 9.0)  # least and largest width of the plot itself
SINGLE_INCHES = 4.4  # least width of a panel that stands alone
HEIGHT_INCHES = (1.8, 14.0)
PADDING_POINTS = 4.0
WIDE_POINTS = 440.0  # a panel that is wider than this is not shrunk into a narrow column
EXTRA_RC = {"svg.fonttype": "none", "font.family": "sans-serif", "path.simplify": True}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel as an `<svg>` element; `width_points` is its natural width, `is_wide` forbids to shrink it much."""

    svg: str
    width_points: float
    height_points: float = 0.0

    @property
    def is_wide(self) -> bool:
        """Whether it would be unreadable in a narrow column."""
        return self.width_points > WIDE_POINTS


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure for a page: the question, a line below it, the quantity, panels and legend entries as `<svg>`."""

    name: str
    title: str
    note: str
    quantity: str
    alternative: str
    panels: tuple[Panel, ...]
    legend: tuple[Panel, ...]

    @property
    def is_across(self) -> bool:
        """Whether it takes all of a page's width."""
        return len(self.panels) > 1 or any(panel.is_wide for panel in self.panels)

    @property
    def columns(self) -> str:
        """In how many columns a wide page shows the panels, as its style names it: such that a row of them is full, if it can be."""
        return {1: "one", 2: "two", 4: "two"}.get(len(self.panels), "three")


def draw_chart(name: str, figure: Figure) -> Chart:
    """The figure's panels as pictures. It changes the figure: save it to files before."""
    title, _, note = figure.get_suptitle().partition("\n")
    quantity = figure.get_supylabel()
    axes = [panel for panel in figure.axes if panel.axison and panel.get_visible()]
    with matplotlib.rc_context(drawing_settings() | EXTRA_RC):
        _set_apart(figure, axes)
        legends = _split_legends(figure)
        tips: dict[str, list[Tip]] = {}
        for index, panel in enumerate(axes):
            panel.set_gid(f"{name}-panel{index}")
            tips |= describe_panel(panel, quantity, prefix=f"{name}-{index}")
        for index, legend in enumerate(legends):
            legend.set_gid(f"{name}-legend{index}")
        tree = _render(figure)
        boxes = [_crop(artist, figure) for artist in [*axes, *legends]]
    attach_tips(tree, tips)
    adapt(tree, prefix=name)
    titles = [panel.get_title(loc="left") for panel in axes]
    is_broken = BREAK_NOTE in note
    alternative = _describe_chart(title, titles, quantity=quantity, axes=axes, is_broken=is_broken)
    groups = {group.get("id"): group for group in tree.iter("g")}
    definitions = [part for part in tree if part.tag == "defs"]
    pictures = []
    for index, (artist, box) in enumerate(zip([*axes, *legends], boxes, strict=True)):
        # What several panels refer to stands in the first one: a page has one space of names.
        shared = definitions if index == 0 else []
        label = clean_text(titles[index].replace("\n", ", ")) if index < len(axes) else None
        group = groups[str(artist.get_gid())]
        pictures.append(_frame([*shared, group], box, label=f"{title} {label}".strip() if label is not None else None))
    return Chart(
        name=name,
        title=title,
        note=note.replace("\n", "; "),
        quantity=quantity,
        alternative=alternative,
        panels=tuple(pictures[: len(axes)]),
        legend=tuple(pictures[len(axes) :]),
    )


def _set_apart(figure: Figure, axes: list[Axes]) -> None:
    """Give every panel its own labels and the same place: each is cut out alone, so they need no room beside others."""
    figure.set_layout_engine("none")
    figure.set_dpi(POINTS_PER_INCH)
    figure.suptitle("")
    figure.supylabel("")
    figure.patch.set_visible(False)
    sizes = []
    shared_label = next((panel.get_xlabel() for panel in axes if panel.get_xlabel()), "")
    least, title = PANEL_INCHES[0] if len(axes) > 1 else SINGLE_INCHES, ""
    for panel in axes:
        # In a grid only the first of a row may have the row's title.
        title = panel.get_title(loc="left") or panel.get_title() or title
        panel.set_title("")
        panel.tick_params(labelleft=True, labelbottom=True)
        panel.patch.set_visible(False)
        if not panel.get_xlabel():
            panel.set_xlabel(shared_label)
        box = panel.get_position()
        labels = fixed_labels(panel.xaxis).values()
        letters = sum(max(map(len, text.splitlines()), default=0) + 2 for text in labels)
        width = min(max(least, letters * LETTER_INCHES), PANEL_INCHES[1])
        panel.set_title(wrap_title(title, inches=width), loc="left")
        height = min(max(HEIGHT_INCHES[0], 0.85 * box.height * figure.get_figheight()), HEIGHT_INCHES[1])
        sizes.append((width, height))
    whole = (max((w for w, _ in sizes), default=1) + 4, max((h for _, h in sizes), default=1) + 4)
    figure.set_size_inches(*whole)
    for panel, (width, height) in zip(axes, sizes, strict=True):
        panel.set_position((2 / whole[0], 2 / whole[1], width / whole[0], height / whole[1]))


def _split_legends(figure: Figure) -> list[Any]:
    """Replace each legend of the figure by one legend an entry, so that entries can wrap like words."""
    entries = []
    for legend in list(figure.legends):
        entries += list(zip(legend.legend_handles, (text.get_text() for text in legend.get_texts()), strict=True))
        legend.remove()
    return [figure.legend(handles=[handle], labels=[label], loc="center") for handle, label in entries]


def _render(figure: Figure) -> ElementTree.Element:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=POINTS_PER_INCH, metadata={"Date": None})
    return ElementTree.fromstring(buffer.getvalue())


def _crop(artist: Artist, figure: Figure) -> Bbox:
    """The artist's box in the SVG's units: points, y downwards."""
    box = artist.get_tightbbox()
    height = figure.get_figheight() * POINTS_PER_INCH
    return Bbox(
        [
            [box.x0 - PADDING_POINTS, height - box.y1 - PADDING_POINTS],
            [box.x1 + PADDING_POINTS, height - box.y0 + PADDING_POINTS],
        ]
    )


def _frame(parts: list[ElementTree.Element], box: Bbox, *, label: str | None) -> Panel:
    svg = ElementTree.Element("svg", viewBox=f"{box.x0:.1f} {box.y0:.1f} {box.width:.1f} {box.height:.1f}")
    svg.set("width", f"{box.width:.0f}pt")
    if label is None:
        svg.set("aria-hidden", "true")  # a legend's mark; its text is said beside it
        svg.set("class", "entry")
    else:
        svg.set("role", "img")
        svg.set("aria-label", label)
    svg.extend(parts)
    return Panel(
        svg=ElementTree.tostring(svg, encoding="unicode"),
        width_points=float(box.width),
        height_points=float(box.height),
    )


def _describe_chart(title: str, titles: list[str], *, quantity: str, axes: list[Axes], is_broken: bool) -> str:
    """What a reader who cannot see the chart is told."""
    names = "; ".join(dict.fromkeys(clean_text(text.replace("\n", ", ")) for text in titles if text))
    against = axes[0].get_xlabel() if axes else ""
    panels = f" {len(axes)} panels: {names}." if len(axes) > 1 and names else f" {names}." if names else ""
    noted = [note for panel in axes for line in panel.lines if isinstance(line, NotedLine) for note in line.notes]
    said = f" {clean_text('; '.join(noted), limit=8000)}." if noted else ""
    said += (
        f" The value axis does not begin at 0 but at {min(p.get_ylim()[0] for p in axes):,.4g}." if is_broken else ""
    )
    what = f" {quantity}{f' against {against}' if against else ''}." if quantity else ""
    return f"Chart: {title}{what}{panels}{said} The tables hold the exact figures."
