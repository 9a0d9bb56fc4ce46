"""The HTML report without a browser: one file, nothing from outside, everything escaped, and small enough to mail."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pytest
from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.page.render import FOLDER, limit_charts
from hvbench.analysis.report.page.tables import MAX_ROWS, show_table
from hvbench.analysis.show.charts import draw_chart
from hvbench.analysis.show.thinning import MAX_PANEL_MARKS
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.records.record import Record
from tests.unit.sample_pages import HOSTILE, make_failed, write_page
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart, make_record

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
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
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


def test_a_run_of_20_000_steps_has_a_page_of_few_marks_that_says_so(tmp_path) -> None:
    records = [make_launch({"framework": name}, steps=20_000) for name in ("pytorch", "tensorflow")]
    text = page_of(tmp_path, records)
    page = Checker(text)
    assert len(text) < 1_500_000
    assert [tag for tag, _ in page.tags].count("use") < 1.2 * MAX_PANEL_MARKS
    # Warm-up steps beyond the scale are marked at the edge: they are there as well.
    assert re.search(
        r"\b\d{3} of 40,000 marks drawn, 1 in \d\d; kept: the lowest and highest of their neighbours", text
    )


@pytest.mark.slow
def test_a_page_of_400_points_shows_the_first_rows_and_names_the_file_that_has_all(tmp_path) -> None:
    choices = product(("pytorch", "tensorflow"), range(200))
    records = [make_launch({"framework": name, "learning_rate": 1e-4 * (1 + step)}, steps=4) for name, step in choices]
    failed = [make_record(status="oom", framework="pytorch", model="small", seed=seed) for seed in range(1, 401)]
    text = page_of(tmp_path, records + failed)
    page = Checker(text)
    assert len(text) < 5_000_000
    assert [tag for tag, _ in page.tags].count("tr") <= 5 * (MAX_ROWS + 1) + 100
    assert "The first 300 of 800 rows, which is what sorting and filtering see: tables/throughput.csv has all." in text
    assert "Throughput: 300 of 800 rows" in text
    assert "The first 300 of 400 rows, which is what sorting and filtering see: report.md has all." in text


def test_charts_that_a_page_has_no_room_for_are_named() -> None:
    figure = Figure()
    figure.suptitle("How well does it scale?\nn = 3")
    figure.subplots().plot([1, 2], [3, 4], "o")
    chart = draw_chart("scaling", figure)
    size = sum(len(panel.svg) for panel in chart.panels)
    first, second, third = limit_charts([chart, chart, chart], most_bytes=2 * size)
    assert (first, second) == (chart, chart)
    assert third.panels == () and third.title == chart.title
    assert third.note.startswith("n = 3; too large for this page") and third.note.endswith("see plots/scaling.svg")


def test_a_mark_has_its_own_text_also_behind_marks_outside_the_picture() -> None:
    figure = Figure()
    panel = figure.subplots()
    panel.plot([1, 2, 3, 4, 5], [1.0, 1e9, np.nan, 4.0, 4.0], "o")
    panel.plot([1, 2], [3, 2], "s", label="other")
    panel.set_ylim(0, 5)
    panel.set_xlabel("step")
    (svg,) = (panel.svg for panel in draw_chart("time", figure).panels)
    marks = re.findall(r'<use x="([^"]+)" y="[^"]+"[^>]*><title>([^<]+)</title>', svg)
    assert [text for _, text in marks] == [
        "step: 1, 1.000 ", "step: 4, 4.000 ", "step: 5, 4.000 ", "other, step: 1, 3.000 ", "other, step: 2, 2.000 ",
    ]  # fmt: skip
    assert [float(x) for x, _ in marks] == sorted(float(x) for x, _ in marks[:3]) + [float(x) for x, _ in marks[3:]]


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
    table = throughput_table(Run(make_quickstart()[:1]))
    column = table.header.index("tokens/s")
    cells = [[text if index == column else cell for index, cell in enumerate(row)] for row in table.cells]
    shown = show_table(type(table)(**{**vars(table), "cells": cells}))
    assert shown["rows"][0]["cells"][column]["value"] == value
