"""Templates of the site -> texts. Everything is escaped but what this package has drawn or rendered itself (`Markup`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import tables_by_topic
from hvbench.analysis.report.page import render as report_page
from hvbench.analysis.report.page.tables import plain_table, show_environment, show_table
from hvbench.analysis.show.text import clean_text
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.outputs.comparison import (
    FULL_HEADER,
    HEADER,
    MOST,
    NOTE,
    brief_row,
    full_row,
    sort_changes,
    summarize,
)
from hvbench.comparison.result import Comparison

TEMPLATES = Path(__file__).with_name("templates")
MAX_BODY_BYTES = 1_500_000  # of the tables of a page, which has to stay below 2 MB
ROWS = (100, 40, 15, 5)  # of each table: the most with which all of them fit
MAX_LINES = 200  # of sentences about a comparison


@cache
def environment() -> Environment:
    """The templates, which find those of the report's page behind their own."""
    folders = [TEMPLATES, report_page.FOLDER]
    return Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """The text of a page."""
    return environment().get_template(f"{template}.html.jinja").render(**values)


def render_run_body(run: Run) -> str:
    """The tables of a run, topic by topic, as the report has them, with as many rows as fit on a page, and its environment."""

    def render_with(rows: int) -> str:
        sections = [
            {
                "id": report_page.slug(part.topic.name),
                "title": part.topic.name,
                "question": part.topic.ask(run),
                "tables": [show_table(table, most=rows, file=name_file_of(table.name)) for table in part.tables],
            }
            for part in tables_by_topic(run)
            if part.tables
        ]
        return render("run_body", sections=sections, environment=show_environment(run))

    return fit(render_with)


def name_file_of(table: str) -> str:
    """Where all rows of a table of a report are."""
    return f"tables/{table}.csv, which hvbench report writes into the run's folder,"


def render_comparison_body(comparison: Comparison, *, judgement: Judgement | None = None) -> str:
    """The verdict, what changed most and everything, in the words and figures of `hvbench compare`; of an A/B comparison the gate's verdict first."""
    several = len(comparison.arms) > 2
    lines = [clean_text(line, limit=400) for line in summarize(comparison)]
    most = [brief_row(*pair, several=several) for pair in sort_changes(comparison)[:MOST]]
    full = [full_row(point, change, several=several) for point in comparison.points for change in point.changes]
    checks = judgement.checks if judgement else ()

    def render_with(rows: int) -> str:
        return render(
            "comparison_body",
            checks=[(check.kind, clean_text(check.place + check.text, limit=400)) for check in checks[: 2 * rows]],
            more_checks=max(0, len(checks) - 2 * rows),
            notes=[clean_text(note, limit=400) for note in (judgement.notes if judgement else ())],
            lines=lines[:MAX_LINES],
            more_lines=max(0, len(lines) - MAX_LINES),
            most=show_changes("most", "What changed most", HEADER, most),
            full=show_changes("everything", "Everything", FULL_HEADER, full[: 3 * rows]),
            more_rows=max(0, len(full) - 3 * rows),
            missing=[clean_text(f"{one.label}: {one.arm}: {one.reason}", limit=300) for one in comparison.missing[:rows]],
            more_missing=max(0, len(comparison.missing) - rows),
            note=NOTE,
        )  # fmt: skip

    return fit(render_with)


def show_changes(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Changes as a table of the report's page."""
    table = plain_table(name, title, header, rows, file="hvbench compare")
    for index, column in enumerate(table["columns"]):
        column["is_number"] = column["header"] not in ("point", "figure", "verdict")
        for row in table["rows"]:
            if column["is_number"]:
                row["cells"][index]["style"] = "number"
    return table


def fit(render_with: Callable[[int], str]) -> str:
    """What is rendered with the most rows of ROWS that fit."""
    texts = map(render_with, ROWS)
    return next((text for text in texts if len(text.encode()) <= MAX_BODY_BYTES), render_with(0))
