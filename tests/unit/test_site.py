"""`hvbench site`: every page stands, says what `history` and `compare` say, and no run costs another."""

from __future__ import annotations

import os
import re
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.site import write_results
from hvbench.comparison.outputs.comparison import HEADER, brief_row, sort_changes
from hvbench.comparison.read import compare_runs, read_history
from hvbench.records.store import RunFolder
from hvbench.site.cells import Cell, Column, align
from hvbench.site.collect import MARKER, collect
from hvbench.site.marks import find_ab, name_range
from hvbench.site.repeat import list_settings, repeat_point
from hvbench.site.sparks import draw_spark
from hvbench.site.summary import Counts, Failure
from hvbench.site.work import Cache, Task, settle
from hvbench.spec.suite import suite_of_words
from tests.unit.sample_site import REVISIONS, RUNS, STEP_AT, build_site, make_results, write_mine, write_wide

ROOT = Path(__file__).parents[2]
MOST_BYTES = 2_000_000


class Links(HTMLParser):
    """What a page leads to, its identifiers, and its tags that do something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.active: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values[name] or "" for name in ("href", "src") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.active += [tag] if tag in ("img", "iframe", "object", "embed", "base", "form") else []
        self.active += [name for name in values if name.startswith("on")]
        self.active += [tag] if tag == "script" and "src" not in values else []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results") / "results")


@pytest.fixture(scope="module")
def site(results: Path) -> Path:
    out = results.parent / "public"
    assert build_site(results, out) == 0
    return out


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def page_of(site: Path, folder: str, words: str) -> str:
    """The one page of a folder whose heading has these words."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((site / folder).glob("*.html"))]
    (text,) = [text for text in texts if words in text.partition("<h1>")[2].partition("</h1>")[0]]
    return text


def test_every_link_leads_to_a_page_and_nothing_leads_out(site: Path) -> None:
    assert len(pages(site)) > 30
    for path in pages(site):
        page = Links(path)
        assert not [tag for tag in page.active if tag != "form"], path
        assert len(page.ids) == len(set(page.ids)), path
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or link.startswith("#"):
                continue
            assert not parts.scheme and not parts.netloc, link
            assert (path.parent / unquote(parts.path)).resolve().is_file(), f"{path}: {link}"


def test_no_page_and_no_part_is_large(site: Path) -> None:
    assert max(path.stat().st_size for path in site.rglob("*") if ".cache" not in path.parts) < MOST_BYTES


def test_what_a_run_says_of_itself_is_text(site: Path) -> None:
    seen = 0
    for path in (each for each in site.rglob("*") if each.suffix in (".html", ".js")):
        text = path.read_text(encoding="utf-8")
        assert "<script>document" not in text and "<img" not in text, path
        assert "\u202e" not in text and "\x00" not in text
        seen += "&lt;/script&gt;&lt;script&gt;document" in text
    assert seen >= 3  # it is there, escaped


def test_a_run_that_cannot_be_read_is_one_line_and_costs_no_other(site: Path, results: Path) -> None:
    text = (site / "problems.html").read_text(encoding="utf-8")
    for name in ("no json", "no object", "another", "no record"):
        assert text.count(f"broken/{name}") >= 1
    assert "schema_version 99 is newer than this hvbench reads" in text
    assert "1 of 3 launches: 1 oom" in text
    places, problems = collect(results)
    assert problems == [] and len(places) == RUNS + 1 + 1 + 1 + 4  # the pairs are the comparison's, the baseline a copy


def test_a_step_is_the_one_of_history_with_its_commits_and_the_verdict_of_ab(site: Path, results: Path) -> None:
    runs = sorted((results / "mine").iterdir())
    records = RunFolder(runs[-1]).read_records()[0]
    assert records[0].environment["hvbench_revision"] == REVISIONS[1]
    history = read_history("step_seconds_median", suite="mine", fingerprint=None, root=results)
    assert history.runs == RUNS
    text = page_of(site, "suites", "mine")
    for line in history.lines:
        (step,) = [entry for entry in line.entries if entry.change is not None]
        assert step.run == runs[STEP_AT].name
        shown = re.findall(rf">\{step.change * 100:+.1f} %</a> <small>([^<]+)<", text)
        assert f"2026-03-{STEP_AT + 1:02}, {REVISIONS[0]}..{REVISIONS[1]}, ab: regression" in shown
    assert "A/B comparisons" in text


def test_a_pair_has_the_figures_of_compare(site: Path, results: Path) -> None:
    a, b = (str(results / "mine" / f"202603{number:02}T120000Z") for number in (STEP_AT, STEP_AT + 1))
    comparison, _ = compare_runs([a, b], by=None, root=results)
    text = page_of(site, "pairs", f"mine: 2026-03-{STEP_AT + 1:02} 12:00 against 2026-03-{STEP_AT:02}")
    for point, change in sort_changes(comparison):
        cells = brief_row(point, change, several=False)
        assert len(cells) == len(HEADER) and all(f">{cell}</td>" in text for cell in cells)
    assert "2 worse, 0 better" in text
    assert (
        len(list((site / "pairs").glob("*.html"))) == 15 + 3 + 1
    )  # the newest six with each other, older ones in a row, machines


def test_a_build_without_news_writes_nothing_and_a_run_more_writes_what_it_touches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    results, out = tmp_path / "results", tmp_path / "public"
    for number in range(2):
        write_mine(results, number)
    assert build_site(results, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name not in (MARKER, ".lock")}
    capfd.readouterr()
    assert build_site(results, out) == 0
    assert ", 0 of them written" in capfd.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    old = page_of(out, "runs", "mine, 2026-03-01")
    gone = write_mine(results, 2)
    assert build_site(results, out) == 0
    assert (
        page_of(out, "runs", "mine, 2026-03-03") and page_of(out, "runs", "mine, 2026-03-01") != old
    )  # compared with it
    shutil.rmtree(gone)
    assert build_site(results, out) == 0
    assert {path for path in before if path.is_file()} == {
        path for path in out.rglob("*") if path.is_file() and path.name not in (MARKER, ".lock")
    }


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("results", "--out", "mine"), 2, "mine: is not empty and is no site of hvbench (it has letter.txt and no hvbench-site.json)"),
        (("results", "--out", "mine/letter.txt"), 2, "mine/letter.txt: not a folder"),
        (("nowhere", "--out", "new"), 2, "nowhere: not a folder of results"),
        (("empty", "--out", "new"), 5, "empty: no run with a readable record"),
        (("broken", "--out", "new"), 5, "the first: a/b: "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_mine(Path("results"), 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "a" / "b" / "records").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "b" / "run.json").write_text("{")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    results, _, out = words
    assert build_site(Path(results), Path(out)) == code
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_many_records_are_many_small_files(tmp_path: Path) -> None:
    """310 points: 200 rows on the first page, the others on a further one, and as a part for the first one's filters."""
    results, out = tmp_path / "results", tmp_path / "public"
    write_wide(results, points=310)
    write_results(
        results, of=ROOT / "results" / "reference" / "quickstart", runs=2, records=6
    )  # as the benchmark makes them
    assert build_site(results, out) == 0
    files = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    assert max(size for name, size in files.items() if not name.startswith(".cache")) < MOST_BYTES / 4
    assert len([name for name in files if name.startswith("points/")]) == 310 + 2
    (further,) = [name for name in files if re.fullmatch(r"suites/wide-\w+-2\.html", name)]
    assert (out / further).read_text(encoding="utf-8").count("<tr data-point") == 110
    assert len([name for name in files if re.fullmatch(r"data/wide-\w+-\d+-rows\.js", name)]) == 1


def test_a_process_that_dies_costs_its_own_tasks_alone(tmp_path: Path) -> None:
    def task(key: str, *, is_deadly: bool = False) -> Task:
        def make() -> Counts:
            if is_deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return Counts(worse=len(key))

        return Task(key=key, made_of="1", kind=Counts, place=key, make=make, records=1000)

    tasks = [task("one"), task("two", is_deadly=True)]
    found = settle(tasks, Cache(folder=tmp_path), processes=2)
    assert found["one"] == Counts(worse=3)
    assert found["two"] == Failure(place="two", reason="not read: the process that read it has died")
    assert Cache(folder=tmp_path).get(tasks[0]) == Counts(worse=3) and Cache(folder=tmp_path).get(tasks[1]) is None


@pytest.mark.parametrize("folder", ["quickstart", "large_batch", "memory_growth", "strategies"])
def test_the_command_of_a_point_makes_that_point(folder: str) -> None:
    records, _ = RunFolder(ROOT / "results" / "reference" / folder).read_records()
    for record in {each.point_id: each for each in records}.values():
        command = repeat_point(record.point, settings=list_settings(record.measure))
        assert command.startswith("hvbench run framework=")
        words, _, ranks = command.removeprefix("hvbench run ").partition(" --np ")
        (point,) = suite_of_words(words.split(), where="here").points()
        assert point.model_copy(update={"world_size": int(ranks)}).point_id == record.point_id


def test_points_stand_below_each_other() -> None:
    texts = ["114.4", "98.44", "1,033", "–", "7"]
    cells = [[Cell(text=text, value=None if text == "–" else float(text.replace(",", "")))] for text in texts]
    padded = [row[0].pad for row in align(cells, [Column(header="ms", is_number=True)])]
    assert padded == ["0", "", ".00", "", ".00"]


def test_a_range_of_commits_and_the_comparison_of_exactly_these() -> None:
    assert name_range("a" * 20, "b" * 20) == f"{'a' * 12}..{'b' * 12}"
    assert name_range("a", "a") == "the same commit, a" and name_range("", "a") == ""
    assert draw_spark([], title="nothing") == "" and "<path" not in draw_spark([2.0], title="one")
    assert draw_spark([1.0, 2.0, 2.0], [1], title='"<').count("<path") == 2


def test_only_an_ab_of_both_revisions_on_that_machine_counts(results: Path) -> None:
    from hvbench.site.build import digest_task

    places = {place.kind + place.path.name: place for place in collect(results)[0]}
    ab = digest_task(next(place for place in places.values() if place.kind == "ab")).make()
    before, now = (digest_task(places[f"run202603{day:02}T120000Z"]).make() for day in (1, RUNS))
    assert ab.verdict == "regression" and ab.revisions == {"a": REVISIONS[0], "b": REVISIONS[1]}
    assert find_ab(before, now, [ab]) is ab
    assert find_ab(now, before, [ab]) is None and find_ab(before, before, [ab]) is None
    elsewhere = now.model_copy(update={"machine": "Example Two"})
    assert find_ab(before, elsewhere, [ab]) is None
