"""A topic is one entry: what is in the list is in every place where a report shows topics, and what is not is nowhere."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import draw_figures, tables_by_topic
from hvbench.analysis.report.listing import render_topic_list
from hvbench.analysis.report.page.render import slug
from hvbench.analysis.topics import catalogue
from hvbench.cli.display.report import write_report
from hvbench.records.store import RunFolder
from tests.unit import toy_topic
from tests.unit.sample_records import make_convergence, make_quickstart, make_record

HAS_PARQUET = importlib.util.find_spec("pyarrow") is not None


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "TOPICS", [*catalogue.TOPICS, toy_topic.TOPIC])


def report(folder: Path) -> tuple[Path, str]:
    """A run of a few launches with its report, made as `hvbench report` makes it; its folder and the text on the terminal."""
    run = RunFolder(folder)
    run.open_for_writing()
    run.write_run({"suite": "toy", "question": "?", "command": "hvbench sweep toy"})
    for record in make_quickstart()[:4]:
        run.write_record(record)
    run.close()
    return folder, write_report(folder, with_parquet=HAS_PARQUET)


def places(folder: Path, terminal: str) -> dict[str, bool]:
    """Where a report can show a topic -> whether the toy is there."""
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {
        "report.md, table": "## Slowest ranks" in text and "| 3 | 1 |" in text and "(tables/toy.csv)" in text,
        "report.md, plot": "![Which rank is slow?](plots/toy_ranks.svg)" in text,
        "report.md, sentence": "Rank 1 is slow in 4 launches." in text,
        "report.md, advice": "Give rank 1 a core of its own." in text,
        "page, navigation": '<a href="#toy-ranks">Toy ranks</a>' in page,
        "page, section": '<section id="toy-ranks"' in page and "Which rank is the slowest?" in page,
        "page, table": 'data-name="toy"' in page and "Counted by a toy." in page,
        "page, chart": 'id="chart-toy_ranks"' in page and "toy-bars" in page,
        "page, sentence": "Rank 1 is slow in 4 launches." in page,
        "page, advice": "Give rank 1 a core of its own." in page,
        "terminal": "Slowest ranks" in terminal and "slowest rank" in terminal,
        **{f"exports, {kind}": f"tables/toy.{kind}" in names for kind in ("csv", "md", "tex")},
        **({"exports, parquet": "tables/toy.parquet" in names} if HAS_PARQUET else {}),
        "plots": {"plots/toy_ranks.svg", "plots/toy_ranks.png"} <= names,
        "docs": "| Toy ranks | Which rank is the slowest? | launches of any kind |" in render_topic_list(),
    }


@pytest.mark.usefixtures("with_toy")
def test_a_topic_added_to_the_list_is_everywhere(tmp_path: Path) -> None:
    found = places(*report(tmp_path / "run"))
    assert [place for place, is_there in found.items() if not is_there] == []


def test_a_topic_that_is_not_in_the_list_is_nowhere(tmp_path: Path) -> None:
    found = places(*report(tmp_path / "run"))
    assert [place for place, is_there in found.items() if is_there] == []


@pytest.mark.usefixtures("with_toy")
def test_a_run_that_does_not_meet_its_needs_does_not_have_it() -> None:
    empty = Run([])
    assert toy_topic.TOPIC not in [part.topic for part in (*tables_by_topic(empty), *draw_figures(empty))]


def test_topics_tables_and_plots_have_names_of_their_own() -> None:
    names = [slug(topic.name) for topic in catalogue.TOPICS]
    assert len(set(names)) == len(names)
    for records in (make_quickstart(repeats=2), make_convergence(repeats=2)):
        run = Run(records)
        for made in ([table.name for part in tables_by_topic(run) for table in part.tables],
                     [name for part in draw_figures(run) for name in part.figures]):  # fmt: skip
            assert len(set(made)) == len(made)


@pytest.mark.parametrize("topic", catalogue.TOPICS, ids=lambda topic: topic.name)
def test_a_topic_says_what_it_answers_and_copes_with_any_run(topic) -> None:
    assert topic.question.endswith("?") and topic.needs.words
    for records in (
        [],
        [make_record(status="oom")],
        [make_record(status="oom"), make_record(status="failed", framework="tensorflow")],
    ):
        run = Run(records)
        if topic.needs.is_met(run):
            assert all(table.name for table in topic.tables(run))
            assert all(topic.plots(run)) and list(topic.advice(run)) == []
    assert json.dumps(topic.name)
