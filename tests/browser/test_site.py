"""The site as a reader meets it: opened from disk, at two widths, in two colour schemes, with a keyboard, on paper, without scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.test_report_page import SCHEMES, WIDTHS, brightness, contrast
from tests.unit.sample_site import build_site, make_results, write_wide

POINTS = 210  # of suite `wide`: ten more than a page has rows


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_wide(make_results(folder / "results"), points=POINTS)
    assert build_site(folder / "results", folder / "public") == 0
    return folder / "public"


def page_file(site: Path, folder: str, begins: str) -> Path:
    """The first page of a folder whose name begins so."""
    return min(
        (path for path in (site / folder).glob("*.html") if path.name.startswith(begins)),
        key=lambda path: len(path.name),
    )


def every_kind(site: Path) -> list[Path]:
    folders = {"suites": "mine", "points": "mine", "runs": "mine", "pairs": "mine", "machines": "example-one"}
    more = [page_file(site, "runs", "ab-mine"), page_file(site, "runs", "strange"), site / "problems.html"]
    return [site / "index.html", *(page_file(site, *each) for each in folders.items()), *more]


def frameworks(page: Page, *, table: int = 0) -> list[str]:
    """Of the rows that are seen."""
    return page.evaluate(
        "(table) => [...document.querySelectorAll('.points table')[table].tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) => row.cells[0].textContent)",
        table,
    )


@pytest.mark.parametrize(("width", "scheme"), list(zip(WIDTHS, SCHEMES, strict=True)))
def test_every_kind_of_page_fits_and_can_be_read_by_whoever_reads(
    site: Path, open_page, width: int, scheme: str
) -> None:
    page = open_page(site / "index.html", width=width, scheme=scheme, within=site)
    for path in every_kind(site):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width, path
        paper, ink, link = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('h1')).color, getComputedStyle(document.querySelector('main a, .top a')).color]"
        )
        assert (brightness(paper) > 0.8) == (scheme == "light")
        assert contrast(ink, paper) > 7 and contrast(link, paper) > 4.5
        assert page.title() != "taken" and page.title().endswith("hvbench")
        counts = page.evaluate(
            "['table', 'table > caption', 'th:not([scope=col])', 'svg:not([role=img][aria-label])', 'h1', 'html[lang]'].map((each) => document.querySelectorAll(each).length)"
        )
        assert counts[0] == counts[1] and counts[2:] == [0, 0, 1, 1], path


def test_a_filter_is_in_the_address_and_the_address_is_a_filter(site: Path, open_page) -> None:
    path = page_file(site, "suites", "mine")
    page = open_page(path, within=site)
    assert page.locator("#controls output").inner_text() == "4 rows"
    page.get_by_label("framework").select_option(label="tensorflow")
    page.wait_for_function("document.querySelector('#controls output').textContent === '2 of 4 rows'")
    assert frameworks(page) == ["tensorflow"] and page.url.endswith("#framework=tensorflow")
    again = open_page(
        path, within=site, fragment="#framework=pytorch&metric=tokens_per_second&over=revisions&words=nowhere"
    )
    again.wait_for_function("document.querySelector('#controls output').textContent === '0 of 4 rows'")
    again.get_by_label("words").fill("")
    again.wait_for_selector("#panels svg[aria-label^='pytorch: tokens/s, 9 runs']")
    assert frameworks(again) == ["pytorch"]
    again.get_by_label("framework").select_option("")
    assert again.url.endswith("#metric=tokens_per_second&over=revisions")


def test_a_panel_shows_the_runs_the_step_its_commits_and_the_verdict(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "mine"), within=site)
    panel = page.locator("#panels .panel").first
    assert panel.locator(".dot").count() == 9 and panel.locator(".step-text").text_content() in (
        "+20.1 %",
        "+19.9 %",
        "+20.0 %",
    )
    panel.locator(".dot").nth(5).hover(force=True)
    tip = page.locator("#tip").inner_text()
    assert tip.startswith("2026-03-06 12:00, bbbbbbbbbbbb: ") and tip.endswith(
        "aaaaaaaaaaaa..bbbbbbbbbbbb, ab: regression"
    )
    newest = page.locator(".points tbody tr").first.locator("td.number").nth(1).inner_text()
    assert newest in panel.locator("svg").get_attribute("aria-label")
    panel.locator(".dot").nth(8).click(force=True)
    page.wait_for_url("**/runs/*")
    assert page.locator("h1").inner_text() == "mine, 2026-03-09 12:00"


def test_rows_beyond_the_first_page_are_loaded_for_a_filter(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "wide"), within=site)
    assert page.locator("#controls output").inner_text() == f"200 rows, {POINTS - 200} more on further pages"
    further = page.locator("#points nav.pages a")
    assert further.count() == 1 and further.is_visible()
    page.get_by_label("words").fill("0.021")  # the rate of the last point alone
    page.wait_for_function(f"document.querySelector('#controls output').textContent.endsWith(' of {POINTS} rows')")
    assert "0.021" in frameworks(page) and len(frameworks(page)) < 5 and not further.is_visible()


def test_it_is_used_with_the_keyboard_alone(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "mine"), within=site)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.name || document.activeElement.textContent.trim().slice(0, 30), getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", name
        seen.append(name)
        if name == "framework":
            page.keyboard.type("tens")
    assert {"Overview", "framework", "words", "metric", "over", "on"} <= set(seen)
    assert frameworks(page) == ["tensorflow"]
    page.get_by_label("framework").select_option("")
    header = page.locator(".points th").filter(has=page.get_by_role("button", name="step median (ms)")).first
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending" and frameworks(page) == ["tensorflow", "pytorch"]


def test_two_runs_lead_to_their_comparison(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "mine"), within=site)
    pick = page.locator("#pick")
    pick.locator("select[name=a]").select_option(label="2026-03-01 12:00, Example One, 2 cores, 8 GiB")
    assert pick.locator("output").inner_text().startswith("hvbench compare ")
    pick.locator("select[name=a]").select_option(label="2026-03-05 12:00, Example One, 2 cores, 8 GiB")
    pick.locator("select[name=b]").select_option(label="2026-03-06 12:00, Example One, 2 cores, 8 GiB")
    pick.get_by_role("link", name="B against A").click()
    page.wait_for_url("**/pairs/*")
    assert page.locator("h1").inner_text() == "mine: 2026-03-06 12:00 against 2026-03-05 12:00"
    assert "2 worse" in page.locator("main").inner_text()


def test_without_scripts_every_table_stands(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "mine"), scripts=False, within=site)
    assert frameworks(page) == ["pytorch", "tensorflow"] and not page.locator("#controls").is_visible()
    assert page.locator(".spark .step").count() == 2
    wide = open_page(page_file(site, "suites", "wide"), scripts=False, within=site)
    assert len(frameworks(wide)) == 200
    wide.locator("#points nav.pages a").click()
    assert len(frameworks(wide)) == POINTS - 200


def test_it_prints_on_white_without_what_is_to_be_clicked(site: Path, open_page) -> None:
    page = open_page(page_file(site, "suites", "mine"), scheme="dark", within=site)
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 1.0
    assert not page.locator("#controls").is_visible() and not page.locator("header.top").is_visible()
    assert page.locator(".points tbody tr").first.is_visible()
    assert page.pdf().startswith(b"%PDF")
