"""matplotlib figures -> inline SVG for a page: a picture per panel, real text, themed colours, exact figures on hover.

Every panel becomes a picture of its own, so that a page can lay them out side by side or one below the other. Colours
that have a meaning become the page's CSS variables, which is how one drawing serves a light and a dark scheme. Works on
any figure: nothing here knows what is plotted.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import Bbox

from hvbench.analysis.show.panels import GREY, STYLES, drawing_settings
from hvbench.analysis.show.tables import clean_text, format_number

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
POINTS_PER_INCH = 72
PANEL_INCHES = (3.0, 9.0)  # least and largest width of the plot itself
SINGLE_INCHES = 4.4  # least width of a panel that stands alone
HEIGHT_INCHES = (1.8, 14.0)
LETTER_INCHES = 0.085
PADDING_POINTS = 4.0
WIDE_POINTS = 440.0  # a panel that is wider than this is not shrunk into a narrow column
EXTRA_RC = {"svg.fonttype": "none", "font.family": "sans-serif", "path.simplify": True}

# What a colour means -> the page's variable. Any other colour stays as it is.
COLOURS = {
    "#000000": "var(--ink)", GREY: "var(--muted)", "#b0b0b0": "var(--grid)", "#e6e6e6": "var(--grid)",
    "#eeeeee": "var(--band)", "#e4e4e4": "var(--band)", "#ffffff": "var(--paper)",
    **{style.colour.lower(): f"var(--{name})" for name, style in STYLES.items()},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel as an `<svg>` element; `width_points` is its natural width, `is_wide` forbids to shrink it much."""

    svg: str
    width_points: float

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


def draw_chart(name: str, figure: Figure) -> Chart:
    """The figure's panels as pictures. It changes the figure: save it to files before."""
    title, _, note = figure.get_suptitle().partition("\n")
    quantity = figure.get_supylabel()
    axes = [panel for panel in figure.axes if panel.axison and panel.get_visible()]
    with matplotlib.rc_context(drawing_settings() | EXTRA_RC):
        _set_apart(figure, axes)
        legends = _split_legends(figure)
        tips = {}
        for index, panel in enumerate(axes):
            panel.set_gid(f"{name}-panel{index}")
            tips |= _describe_artists(panel, quantity, prefix=f"{name}-{index}")
        for index, legend in enumerate(legends):
            legend.set_gid(f"{name}-legend{index}")
        tree = _render(figure)
        boxes = [_crop(artist, figure) for artist in [*axes, *legends]]
    _attach_tips(tree, tips)
    _theme(tree, prefix=name)
    titles = [panel.get_title(loc="left") for panel in axes]
    alternative = _describe_chart(title, titles, quantity=quantity, axes=axes)
    groups = {group.get("id"): group for group in tree.iter(f"{SVG}g")}
    definitions = [part for part in tree if part.tag == f"{SVG}defs"]
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
        panel.set_title(title, loc="left")
        panel.tick_params(labelleft=True, labelbottom=True)
        panel.patch.set_visible(False)
        if not panel.get_xlabel():
            panel.set_xlabel(shared_label)
        box = panel.get_position()
        letters = sum(len(text) + 2 for text in _fixed_labels(panel.xaxis).values())
        width = min(max(least, letters * LETTER_INCHES), PANEL_INCHES[1])
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
    text = ElementTree.tostring(svg, encoding="unicode")
    text = re.sub(r"<(/?)ns\d+:", r"<\1", text)
    text = re.sub(r'\sxmlns(:ns\d+)?="[^"]*"', "", text)
    return Panel(svg=text, width_points=float(box.width))


def _describe_chart(title: str, titles: list[str], *, quantity: str, axes: list[Axes]) -> str:
    """What a reader who cannot see the chart is told."""
    names = "; ".join(dict.fromkeys(clean_text(text.replace("\n", ", ")) for text in titles if text))
    against = axes[0].get_xlabel() if axes else ""
    panels = f" {len(axes)} panels: {names}." if len(axes) > 1 and names else f" {names}." if names else ""
    return f"Chart: {title} {quantity}{f' against {against}' if against else ''}.{panels} The tables hold the exact figures."


# --- exact figures ---


def _describe_artists(panel: Axes, quantity: str, *, prefix: str) -> dict[str, list[tuple[float, float, str]]]:
    """Names every artist that shows data -> (x, y in the SVG, text) of each of its marks."""
    tips: dict[str, list[tuple[float, float, str]]] = {}
    height = panel.get_figure().get_figheight() * POINTS_PER_INCH
    quantity = panel.get_ylabel() or quantity
    for index, line in enumerate(panel.lines):
        if line.get_marker() in (None, "None", "none", "", " "):
            continue
        gid = f"{prefix}-line{index}"
        line.set_gid(gid)
        data = np.asarray(line.get_xydata(), dtype=float)
        places = line.get_transform().transform(data)
        who = _name_of(line)
        tips[gid] = [
            (float(place[0]), height - float(place[1]), _tip(panel, who, x=float(x), y=float(y), quantity=quantity))
            for place, (x, y) in zip(places, data, strict=True)
            if np.isfinite(place).all()
        ]
    bars = [
        (container, patch)
        for container in panel.containers
        if isinstance(container, BarContainer)
        for patch in container.patches
    ]
    for index, (container, bar) in enumerate(bars):
        gid = f"{prefix}-bar{index}"
        bar.set_gid(gid)
        is_flat = container.orientation == "horizontal"
        middle = bar.get_y() + bar.get_height() / 2 if is_flat else bar.get_x() + bar.get_width() / 2
        length = bar.get_width() if is_flat else bar.get_height()
        where = _value_text(panel.yaxis if is_flat else panel.xaxis, float(middle))
        unit = panel.get_xlabel() if is_flat else quantity
        label = str(container.get_label())
        who = "" if label.startswith("_") else label
        tips[gid] = [(0.0, 0.0, ", ".join(filter(None, [who, where, f"{_number(length)} {unit}"])))]
    return tips


def _tip(panel: Axes, who: str, *, x: float, y: float, quantity: str) -> str:
    named = _value_text(panel.xaxis, x)
    axis = panel.get_xlabel()
    where = f"{axis}: {named}" if axis else named
    return ", ".join(filter(None, [who, where, f"{_number(y)} {quantity}"]))


def _name_of(artist: Any) -> str:
    """The framework that has the artist's colour, or the artist's own label."""
    colour = to_hex(artist.get_color())
    label = str(artist.get_label())
    own = "" if label.startswith("_") else label
    return next((style.label for style in STYLES.values() if style.colour.lower() == colour), own)


def _number(value: float) -> str:
    return format_number(value) if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"


def _fixed_labels(axis: Axis) -> dict[float, str]:
    """Position -> text of ticks whose texts are given; empty for an axis of numbers."""
    locator = axis.get_major_locator()
    if not isinstance(locator, FixedLocator):
        return {}
    places = [float(place) for place in locator.locs]
    return dict(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def _value_text(axis: Axis, value: float) -> str:
    labels = _fixed_labels(axis)
    near = min(labels, key=lambda place: abs(place - value), default=None)
    return labels[near] if near is not None and abs(near - value) < 0.5 else f"{value:,g}"


def _attach_tips(tree: ElementTree.Element, tips: dict[str, list[tuple[float, float, str]]]) -> None:
    """Add a `<title>` to each mark: browsers show it on hover, even without scripts."""
    for group in tree.iter(f"{SVG}g"):
        known = tips.get(group.get("id") or "")
        if not known:
            continue
        marks = list(group.iter(f"{SVG}use"))
        if not marks:
            _add_title(group, known[0][2])
        for mark in marks:
            x, y = float(mark.get("x", 0)), float(mark.get("y", 0))
            nearest = min(known, key=lambda tip: (tip[0] - x) ** 2 + (tip[1] - y) ** 2)
            if (nearest[0] - x) ** 2 + (nearest[1] - y) ** 2 < 1.0:
                _add_title(mark, nearest[2])


def _add_title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element(f"{SVG}title")
    title.text = text
    element.insert(0, title)


# --- colours and names ---


def _theme(tree: ElementTree.Element, *, prefix: str) -> None:
    """Replace colours by the page's variables, shorten numbers, and make names unique on the page."""
    referred = set()
    for element in tree.iter():
        for key, value in element.attrib.items():
            referred |= set(re.findall(r"url\(#([^)]+)\)", value)) | ({value[1:]} if key == LINK else set())
    for element in tree.iter():
        if isinstance(element.tag, str) and element.tag.startswith(SVG):
            element.tag = element.tag[len(SVG) :] if element.tag not in (f"{SVG}g", f"{SVG}defs") else element.tag
        for key, value in list(element.attrib.items()):
            if key == LINK:
                del element.attrib[key]
                element.set("href", f"#{prefix}-{value[1:]}")
            elif key == "id":
                if value in referred:
                    element.set("id", f"{prefix}-{value}")
                elif not value.startswith(f"{prefix}-"):
                    del element.attrib["id"]
            else:
                element.set(key, _shorten(re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", _theme_value(key, value))))


def _theme_value(key: str, value: str) -> str:
    if key in ("style", "fill", "stroke"):
        value = re.sub(r"#[0-9a-fA-F]{6}\b", lambda match: COLOURS.get(match[0].lower(), match[0]), value)
        # Text has no colour of its own where matplotlib leaves out black.
        value = re.sub(r"font: ([\d.]+)px [^;]+", r"font-size: \1px", value)
    return value


def _shorten(value: str) -> str:
    """Two decimals of a point are more than a screen shows."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
