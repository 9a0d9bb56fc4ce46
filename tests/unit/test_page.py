"""The HTML report without a browser: one file, nothing from outside, everything escaped, and small enough to mail."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.report import page as page_module
from hvbench.analysis.report.page import arrange, show_table
from hvbench.analysis.show.charts import draw_chart
from hvbench.analysis.show.tables import throughput_table
from hvbench.records.record import Record
from tests.unit.sample_pages import HOSTILE, make_failed, write_page
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart

VOID = {"meta", "link", "br", "input", "img"}


class Checker(HTMLParser):
    """Notes tags, attributes and texts, and that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(tmp_path, records: list[Record], run: dict | None = None, *, with_charts: bool = True) -> str:
    return write_page(tmp_path / "report.html", records, run, with_charts=with_charts).read_text(encoding="utf-8")


def test_it_is_one_file_that_refers_to_nothing_outside(tmp_path) -> None:
    page = Checker(page_of(tmp_path, make_convergence()))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    style = (Path(page_module.__file__).parent / "page.css").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(", style)


def test_every_name_on_the_page_is_there_once_and_every_reference_leads_somewhere(tmp_path) -> None:
    page = Checker(page_of(tmp_path, make_convergence()))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {attributes["href"][1:] for _, attributes in page.tags if (attributes.get("href") or "").startswith("#")}
    targets |= {
        found
        for _, attributes in page.tags
        for value in attributes.values()
        for found in re.findall(r"url\(#([^)]+)\)", value or "")
    }
    assert targets <= set(names)


def test_hostile_strings_stay_text(tmp_path) -> None:
    run = {
        "suite": HOSTILE,
        "question": HOSTILE,
        "command": HOSTILE,
        "skipped": [{"point_id": HOSTILE, "reason": HOSTILE}],
    }
    text = page_of(tmp_path, make_failed(), run, with_charts=False)
    page = Checker(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "\u202e" not in text and "\x00" not in text
    assert text.count("&lt;script&gt;") >= 5


@pytest.mark.slow
def test_two_hundred_points_are_under_five_megabytes(tmp_path) -> None:
    axes = {"framework": ("pytorch", "tensorflow"), "micro_batch_size": (2, 4, 8, 16, 32), "gradient_accumulation_steps": (1, 2, 4, 8, 16),
            "precision": ("fp32", "bf16"), "compression": ("none", "fp16")}  # fmt: skip
    records = [make_launch(dict(zip(axes, values, strict=True)), steps=4) for values in product(*axes.values())]
    assert len(records) == 200
    assert len(page_of(tmp_path, records)) < 5_000_000


def test_every_table_and_figure_is_shown_even_one_that_the_page_does_not_know(tmp_path) -> None:
    records = make_quickstart()
    table = throughput_table(point_frame(records))
    own = type(table)(**{**vars(table), "name": "ceilings", "title": "Ceilings"})
    with matplotlib.rc_context():
        figure = Figure()
        figure.suptitle("Where does the time go?")
        bars = figure.subplots().bar(["fp32", "bf16"], [1.5, 2.5], label="all-reduce")
        assert len(bars) == 2
    sections = arrange([table, own], [draw_chart("time", figure)])
    assert [section.title for section in sections] == ["Throughput", "Ceilings", "Where does the time go?"]
    (chart,) = sections[2].charts
    assert "all-reduce" in chart.panels[0].svg and "<title>" in chart.panels[0].svg


def test_a_figure_of_the_same_name_goes_with_its_table() -> None:
    table = throughput_table(point_frame(make_quickstart()))
    own = type(table)(**{**vars(table), "name": "scaling", "title": "Scaling"})
    figure = Figure()
    figure.suptitle("How well does it scale?")
    figure.subplots().plot([1, 2], [3, 4], "o")
    (section,) = arrange([own], [draw_chart("scaling", figure)])
    assert section.title == "Scaling" and len(section.charts) == len(section.tables) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2,372", 2372.0),
        ("886.3 to 6,348", 886.3),
        ("–", None),
        ("n=1", None),
        ("1.2e-05", 1.2e-5),
        ("not reached", None),
    ],
)
def test_cells_sort_by_the_number_that_they_start_with(text: str, value: float | None) -> None:
    table = throughput_table(point_frame(make_quickstart()[:1]))
    column = table.header.index("tokens/s")
    cells = [[text if index == column else cell for index, cell in enumerate(row)] for row in table.cells]
    shown = show_table(type(table)(**{**vars(table), "cells": cells}))
    assert shown["rows"][0]["cells"][column]["value"] == value
