"""Tables for papers and notebooks: LaTeX from a table's texts, Parquet from raw values."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pandas as pd

from hvbench.analysis.show.tables import Table
from hvbench.analysis.show.text import clean_text
from hvbench.errors import UsageError
from hvbench.io.atomic import write_bytes

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "–": "--",
        "…": r"\ldots{}",
        "✓": r"\checkmark{}",
    }
)


def render_latex(table: Table) -> str:
    """A `tabular` with rules of `booktabs`, caption and label; every text is escaped."""
    cells = [[clean_text(cell) for cell in row] for row in table.cells]
    frame = pd.DataFrame(
        [[escape_latex(cell) for cell in row] for row in cells], columns=[escape_latex(name) for name in table.header]
    )
    text = frame.to_latex(
        index=False,
        escape=False,
        column_format="".join("r" if number else "l" for number in table.is_number),
        caption=escape_latex(table.title),
        label=f"tab:{table.name}",
    )
    return f"% Needs \\usepackage{{booktabs}}.\n{text}"


def escape_latex(text: str) -> str:
    """`text` as literal LaTeX."""
    return text.translate(LATEX)


def require_parquet() -> None:
    """Raise UsageError when the library that writes Parquet is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow: pip install 'hvbench[parquet]'")


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    """Write `frame` as a Parquet file; its path. Raises OSError, and UsageError without pyarrow."""
    require_parquet()
    buffer = io.BytesIO()
    # A column that holds only missing values gets a kind, and launches agree on it.
    frame.convert_dtypes().to_parquet(buffer, index=False, engine="pyarrow")
    write_bytes(path, buffer.getvalue(), durable=False)
    return path
