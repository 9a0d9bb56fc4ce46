"""A table -> CSV, Markdown or plain text.

CSV keeps raw values with the unit in the column's name and every interval; Markdown and text are for reading. What
records say is cleaned of control characters and escaped here, where it is written, never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from hvbench.analysis.frame.axes import LEADING_AXES
from hvbench.analysis.show.cells import head_axis
from hvbench.analysis.show.tables import Table
from hvbench.analysis.show.text import clean_text, escape_markdown


def render_csv(table: Table) -> str:
    """Raw values, units in the column names, an empty cell for what is missing."""
    return frame_to_csv(table.data)


def frame_to_csv(frame: pd.DataFrame) -> str:
    """`frame` as CSV; text that a spreadsheet would run as a formula is defused with an apostrophe."""
    safe = frame.copy()
    for name in safe.select_dtypes(["str", "object"]).columns:
        safe[name] = [_defuse(value) if isinstance(value, str) else value for value in safe[name]]
    return safe.to_csv(index=False, lineterminator="\n")


def render_markdown(table: Table, *, with_constants: bool = True) -> str:
    """A heading-less Markdown block: constants, the table, its notes."""
    blocks = []
    if with_constants and table.constants:
        blocks.append(f"Same for all: {escape_markdown(join_constants(table.constants), limit=2000)}.")
    if table.cells:
        lines = [table.header, ["---:" if number else ":---" for number in table.is_number]]
        lines += [[escape_markdown(cell) for cell in row] for row in table.cells]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        blocks += table.notes
    else:
        blocks.append("No launches.")
    return "\n\n".join(blocks) + "\n"


def render_text(table: Table) -> str:
    """The table for a terminal: its brief columns, printable characters only, one line per point."""
    if not table.cells:
        return f"{table.title}: no launches\n"

    def keep(row: Sequence[Any]) -> list[Any]:
        return [value for value, is_brief in zip(row, table.is_brief, strict=True) if is_brief]

    leading = {name: value for name, value in table.constants.items() if name in LEADING_AXES}
    title = f"{table.title} ({clean_text(join_constants(leading))})" if leading else table.title
    cells = [[clean_text(cell, limit=60) for cell in keep(row)] for row in table.cells]
    align = ["right" if number else "left" for number in keep(table.is_number)]
    body = tabulate(cells, headers=keep(table.header), tablefmt="simple", colalign=align, disable_numparse=True)
    return f"{title}\n\n{body}\n"


def join_constants(constants: dict[str, str]) -> str:
    """What all points share, as one line."""
    return ", ".join(f"{head_axis(name)} {value}" for name, value in constants.items())


def _defuse(text: str) -> str:
    line = clean_text(text, limit=1000)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
