"""matplotlib's SVG -> SVG as a page needs it: the page's colours, names that are unique on the page, few bytes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from hvbench.analysis.show.panels import GREY, STYLES

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"

# What a colour means -> the page's variable. Any other colour stays as it is.
COLOURS = {
    "#000000": "var(--ink)", "#111111": "var(--ink)", GREY: "var(--muted)", "#b0b0b0": "var(--grid)", "#e6e6e6": "var(--grid)",
    "#eeeeee": "var(--band)", "#e4e4e4": "var(--band)", "#ffffff": "var(--paper)",
    **{style.colour.lower(): f"var(--{name})" for name, style in STYLES.items()},
}  # fmt: skip


def adapt(tree: ElementTree.Element, *, prefix: str) -> None:
    """Change an SVG in place: variables for colours, names that begin with `prefix`, what is said twice said once."""
    names = _rename(tree, prefix=prefix)
    for element in tree.iter():
        element.tag = element.tag.removeprefix(SVG)
        if element.tag == "g":
            _share_style(element)
        for key, value in list(element.attrib.items()):
            if key == LINK:
                del element.attrib[key]
                element.set("href", f"#{names[value[1:]]}")
            elif key == "id":
                if value in names:
                    element.set("id", names[value])
                elif not value.startswith(f"{prefix}-"):
                    del element.attrib["id"]
            elif key == "transform" and value.startswith("rotate(-0 "):
                del element.attrib["transform"]
            else:
                element.set(key, _adapt_value(key, value, names))
        if element.tag != "text" and not (element.text or "").strip():
            element.text = None
        element.tail = None


def _rename(tree: ElementTree.Element, *, prefix: str) -> dict[str, str]:
    """Every name that is referred to -> a short one; matplotlib's are as long as a digest, and each mark repeats one."""
    referred = {}
    for element in tree.iter():
        for key, value in element.attrib.items():
            for name in [value[1:]] if key == LINK else re.findall(r"url\(#([^)]+)\)", value):
                referred.setdefault(name, f"{prefix}-d{len(referred)}")
    return referred


def _share_style(group: ElementTree.Element) -> None:
    """Marks of one line look the same: their style moves to the group that holds them, and nothing else."""
    styles = {child.get("style") for child in group}
    if len(styles) == 1 and None not in styles and len(group) > 1 and all(child.tag == f"{SVG}use" for child in group):
        group.set("style", "; ".join(filter(None, [group.get("style"), *styles])))
        for child in group:
            del child.attrib["style"]


def _adapt_value(key: str, value: str, names: dict[str, str]) -> str:
    if key in ("style", "fill", "stroke"):
        value = re.sub(r"#[0-9a-fA-F]{6}\b", lambda match: COLOURS.get(match[0].lower(), match[0]), value)
        # The page has a font of its own.
        value = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;]+", _adapt_font, value)
        value = re.sub(r"font-family: [^;]+(; |$)", "", value)
    value = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names[match[1]]})", value)
    value = shorten_numbers(value)
    return re.sub(r"\s*([MLCQz])\s*", r"\1", value) if key == "d" else value


def _adapt_font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}px"


def shorten_numbers(value: str) -> str:
    """Two decimals of a point are more than a screen shows."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
