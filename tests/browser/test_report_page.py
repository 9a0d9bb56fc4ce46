"""The HTML report as a reader meets it: opened from a file in a browser, at two widths, in two colour schemes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Page

from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.sample_pages import HOSTILE, make_failed, write_page
from tests.unit.sample_records import make_launch, make_quickstart

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


def make_many() -> list[Record]:
    """Points, more than a table on the page has rows."""
    choices = product(("pytorch", "tensorflow"), range(200))
    return [make_launch({"framework": name, "learning_rate": 1e-4 * (1 + step)}, steps=4) for name, step in choices]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a real run: real training by both frameworks, as published."""
    folder = RunFolder(ROOT / "results" / "reference" / "convergence")
    return write_page(tmp_path_factory.mktemp("real") / "report.html", folder.read_records()[0], folder.read_run())


RUNS = {
    "failed points": make_failed,
    "one point": lambda: [make_launch({"framework": "pytorch"})],
    "empty": list,
    "400 points": make_many,
}


@pytest.fixture(scope="session", params=RUNS)
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hostile = {
        "suite": HOSTILE,
        "question": HOSTILE,
        "command": HOSTILE,
        "skipped": [{"point_id": HOSTILE, "reason": HOSTILE}],
    }
    run = hostile if request.param == "failed points" else None
    return write_page(tmp_path_factory.mktemp("page") / "report.html", RUNS[request.param](), run)


def column(page: Page, table: str, header: str) -> list[str]:
    """The texts of one column's visible cells, from top to bottom."""
    return page.evaluate(
        """([name, header]) => {
            const table = document.querySelector(`.grid[data-name=${name}] table`);
            const index = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === header);
            return [...table.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) => row.cells[index].textContent);
        }""",
        [table, header],
    )


def click_header(page: Page, table: str, header: str) -> str | None:
    """Click a column's header; the sort that the column then states."""
    cell = page.locator(f".grid[data-name={table}] th").filter(has=page.get_by_role("button", name=header, exact=True))
    cell.get_by_role("button").click()
    return cell.get_attribute("aria-sort")


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace(",", "")) for text in texts]


@pytest.mark.parametrize(("width", "scheme"), list(product(WIDTHS, SCHEMES)))
def test_charts_render_at_every_width_in_every_scheme(real: Path, open_page, width: int, scheme: str) -> None:
    page = open_page(real, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    boxes = page.evaluate(
        "[...document.querySelectorAll('.panel svg')].map((svg) => { const b = svg.getBoundingClientRect(); return [b.width, b.height, b.right]; })"
    )
    assert len(boxes) >= 5
    assert all(w > 250 and h > 100 and right <= width for w, h, right in boxes)
    # What is drawn can be seen: ink, labels and lines stand out from the paper in this scheme.
    seen = page.evaluate(
        """() => {
            const text = getComputedStyle(document.querySelector('.panel svg text')).fill;
            const line = [...document.querySelectorAll('.panel svg path')].map((path) => getComputedStyle(path).stroke);
            return [getComputedStyle(document.querySelector('main > section')).backgroundColor, text, ...new Set(line)];
        }"""
    )
    paper, ink, *strokes = seen
    assert (brightness(paper) > 0.8) == (scheme == "light")
    assert contrast(ink, paper) > 7
    assert sum(contrast(stroke, paper) > 3 for stroke in strokes if stroke != "none") >= 2  # both frameworks' colours


def channels(colour: str) -> list[float]:
    return [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def brightness(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def rows_of_figures(page: Page) -> list[tuple[float, list[float]]]:
    """Of every row of charts in the sections: the width that there is, and the widths of the figures in it."""
    return page.evaluate(
        """[...document.querySelectorAll('.charts')].flatMap((charts) => {
            const rows = new Map();
            for (const figure of charts.children) {
                const box = figure.getBoundingClientRect();
                rows.set(box.top, [...(rows.get(box.top) ?? []), box.width]);
            }
            return [...rows.values()].map((widths) => [charts.clientWidth, widths]);
        })"""
    )


def test_the_answer_has_its_contrasts_beside_it_on_the_first_screen_a_row_a_configuration(
    real: Path, open_page
) -> None:
    page = open_page(real, width=1100)
    text, chart = (page.locator(name).first.bounding_box() for name in (".headlines", ".beside figure"))
    assert text["x"] + text["width"] <= chart["x"] and chart["y"] + chart["height"] < 900
    marks = page.locator("#chart-contrast_tensorflow_pytorch [data-tip]").evaluate_all(
        "(marks) => marks.map((mark) => mark.dataset.tip)"
    )
    said = [(tip.partition(": ")[0], tip.partition(": ")[2].split()[0]) for tip in marks]
    _mean, *rows = said
    names, ratios = (column(page, "frameworks", name) for name in ("precision", "TensorFlow / PyTorch"))
    assert rows == list(zip(names, ratios, strict=True))


def test_a_table_sorts_both_ways(real: Path, open_page) -> None:
    page = open_page(real)
    assert click_header(page, "throughput", "tokens/s") == "ascending"
    rising = numbers(column(page, "throughput", "tokens/s"))
    assert rising == sorted(rising) and len(set(rising)) == 4
    assert click_header(page, "throughput", "tokens/s") == "descending"
    assert numbers(column(page, "throughput", "tokens/s")) == rising[::-1]
    assert click_header(page, "throughput", "framework") == "ascending"
    assert page.locator(".grid[data-name=throughput] th[aria-sort]").count() == 1


def test_a_table_sorts_with_the_keyboard_and_keeps_missing_values_last(tmp_path: Path, open_page) -> None:
    page = open_page(write_page(tmp_path / "report.html", make_failed(), with_charts=False))
    for expected in ("ascending", "descending"):
        page.locator(".grid[data-name=throughput] th button", has_text="tokens/s").first.press("Enter")
        assert page.locator(".grid[data-name=throughput] th[aria-sort]").get_attribute("aria-sort") == expected
        assert column(page, "throughput", "tokens/s")[-2:] == ["–", "–"]


def test_a_table_filters(tmp_path: Path, open_page) -> None:
    page = open_page(write_page(tmp_path / "report.html", make_quickstart(), with_charts=False))
    grid = page.locator(".grid[data-name=throughput]")
    grid.get_by_label("Filter").fill("TensorFlow bf16")
    assert grid.locator("output").inner_text() == "8 of 32 rows"
    assert set(column(page, "throughput", "framework")) == {"tensorflow"}
    assert set(column(page, "throughput", "precision")) == {"bf16"}
    grid.get_by_label("Filter").fill("")
    assert len(column(page, "throughput", "framework")) == 32


def test_a_chart_shows_its_exact_figures_beside_the_pointer(real: Path, open_page) -> None:
    page = open_page(real)
    page.locator("#chart-throughput_by_precision use[data-tip]").first.hover(force=True)
    tip = page.locator("#tip").inner_text()
    rate = column(page, "throughput", "tokens/s")[0]
    assert tip == f"PyTorch, precision: fp32, {rate} tokens/s, all ranks"


def test_without_scripts_everything_is_there(real: Path, open_page) -> None:
    page = open_page(real, scripts=False)
    assert "did the same work" in page.locator("main").inner_text()
    assert page.locator("svg title").count() > 10


def test_a_reader_of_the_first_screen_knows_what_to_use_and_how_sure_it_is(real: Path, open_page) -> None:
    page = open_page(real)
    for text in (
        page.locator(".claim").first,
        page.get_by_text("How sure is this?"),
        page.locator(".sure li").first,
    ):
        box = text.bounding_box()
        assert box["y"] + box["height"] < 900


def test_it_can_be_read_with_a_screen_reader(real: Path, open_page) -> None:
    page = open_page(real)
    tables, captions = page.locator("table").count(), page.locator("table > caption").count()
    assert tables == captions >= 3
    assert page.locator("th:not([scope=col])").count() == 0
    assert page.locator(".panel svg:not([role=img][aria-label])").count() == 0
    assert page.locator("html[lang]").count() == 1
    assert page.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length === new Set(ids).size; })()"
    )


def test_every_kind_of_run_renders(page_file: Path, open_page) -> None:
    for width in WIDTHS:
        page = open_page(page_file, width=width)
        assert page.title() != "taken"
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator(".headlines p").first.inner_text()
        rows = rows_of_figures(page)
        assert all(sum(widths) > 0.9 * room for room, widths in rows), "no half of a row is blank"
        if "oom" in page.locator("#failures").inner_text():
            tops = page.evaluate(
                "[...document.querySelectorAll('.panel')].map((one) => one.getBoundingClientRect().top)"
            )
            assert (len(set(tops)) < len(tops)) is (width == 1280), "charts abreast, or one a row"
        assert page.locator("img").count() == 0 and page.locator("script").count() == 1


def test_it_prints_every_row_on_white(tmp_path: Path, open_page) -> None:
    page = open_page(write_page(tmp_path / "report.html", make_quickstart(), with_charts=False), scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert (
        brightness(page.evaluate("getComputedStyle(document.querySelector('main > section')).backgroundColor")) == 1.0
    )
    height, content = page.evaluate(
        "(() => { const s = document.querySelector('.grid[data-name=throughput] .scroll'); return [s.clientHeight, s.scrollHeight]; })()"
    )
    assert height == content
    assert page.pdf().startswith(b"%PDF")
