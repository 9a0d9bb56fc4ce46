"""Tables as the page's template needs them: cleaned texts, the number that a cell sorts by, and the look of its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_environment, list_failures
from hvbench.analysis.show.cells import NOT_AVAILABLE
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.tables import Table
from hvbench.analysis.show.text import clean_text

LEADING_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
LONG_CELL = 48  # characters; a longer text may wrap
MAX_ROWS = 300  # of a table on the page: some 0.2 MB
BAD = ("failed", "timeout", "oom", "diverged", "interrupted", "skipped")


def show_table(table: Table, *, most: int = MAX_ROWS, file: str = "") -> dict[str, Any]:
    """A Table as the template needs it: cleaned texts, the number that each cell sorts by, and the look of its rows.

    A page holds `most` of them, and a note then names the `file` that has all, by default the one beside the report.
    """
    rows = []
    for texts in table.cells[:most]:
        cells = [
            show_cell(text, header=header, is_number=is_number)
            for text, header, is_number in zip(texts, table.header, table.is_number, strict=True)
        ]
        rows.append({"cells": cells, "is_bad": any(cell["text"].startswith(BAD) for cell in cells[-1:])})
    return {
        "name": table.name,
        "title": table.title,
        "caption": f"{table.title}: {count_rows(table.cells, most=most)}",
        "columns": [
            {"header": header, "is_number": number}
            for header, number in zip(table.header, table.is_number, strict=True)
        ],
        "rows": rows,
        "notes": [*note_rows(table.cells, file=file or f"tables/{table.name}.csv", most=most), *table.notes],
    }


def count_rows(rows: Sequence[Any], *, most: int = MAX_ROWS) -> str:
    """`32 rows`, or `300 of 1,667 rows` where a page does not show all."""
    shown = f"{most:,} of " if len(rows) > most else ""
    return f"{shown}{len(rows):,} row{'' if len(rows) == 1 else 's'}"


def note_rows(rows: Sequence[Any], *, file: str, most: int = MAX_ROWS) -> list[str]:
    """What to say below a table that has more rows than a page shows; nothing where all are there."""
    if len(rows) <= most:
        return []
    return [f"The first {most:,} of {len(rows):,} rows, which is what sorting and filtering see: {file} has all."]


def show_cell(text: str, *, header: str, is_number: bool) -> dict[str, Any]:
    """One cell; `value` is the number that its text starts with, or None where there is none."""
    text = clean_text(text, limit=500)
    found = LEADING_NUMBER.match(text) if is_number else None
    is_framework = header == "framework" and text in STYLES
    style = "number" if is_number else f"framework {text}" if is_framework else "long" if len(text) > LONG_CELL else ""
    value = float(found[0].replace(",", "")) if found and text != NOT_AVAILABLE else None
    return {"text": text, "value": value, "style": style}


def plain_table(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, file: str
) -> dict[str, Any]:
    """A table of texts as the template needs it; `file` has all of them where the page has not."""
    return {
        "name": name,
        "title": title,
        "caption": f"{title}: {count_rows(rows)}",
        "columns": [{"header": name, "is_number": False} for name in header],
        "rows": [
            {"cells": [show_cell(cell, header="", is_number=False) for cell in row], "is_bad": False}
            for row in rows[:MAX_ROWS]
        ],
        "notes": note_rows(rows, file=file),
    }


def show_failures(run: Run) -> dict[str, Any]:
    """What failed or was skipped, as a table."""
    rows = [
        (one.point_id, "" if one.launch is None else str(one.launch), one.status, one.reason)
        for one in list_failures(run)
    ]
    return plain_table(
        "failures",
        "Launches and points without a result",
        ("point", "launch", "outcome", "why"),
        rows,
        file="report.md",
    )


def show_environment(run: Run) -> dict[str, Any]:
    """Machine, software and settings, as a table."""
    return plain_table(
        "environment",
        "Machine, software and settings",
        ("field", "value"),
        list(list_environment(run.records).items()),
        file="report.md",
    )
