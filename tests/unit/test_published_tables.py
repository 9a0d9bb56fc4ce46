"""The tables and the text of every published run are today what they were when their digests were taken.

`published_tables.json` holds them. A change of analysis that should move no figure is held to that here; one that should
takes new digests (`python -m tests.unit.test_published_tables`) and says in the change log which figures moved and why.
Raw values are compared to six significant digits: the last digits of a logarithm or a fit are the processor's own.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.markdown import render_report
from hvbench.analysis.report.write import render_tables
from hvbench.records.record import Record
from hvbench.records.store import RunFolder

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
DIGESTS = Path(__file__).with_name("published_tables.json")
RUNS = sorted(path.parent.name for path in REFERENCE.glob("*/run.json"))
# Tests of one run share a process: its tables are computed once.
EACH_RUN = [pytest.param(name, marks=pytest.mark.xdist_group(f"published-{name}")) for name in RUNS]
SIGNIFICANT_DIGITS = 6


@functools.cache
def write_texts(name: str) -> dict[str, str]:
    """File below a published run's folder -> its text, as `report_texts` has it."""
    folder = RunFolder(REFERENCE / name)
    records, problems = folder.read_records()
    assert not problems
    return report_texts(records, folder.read_run())


def report_texts(records: list[Record], request: dict[str, Any]) -> dict[str, str]:
    """File below a run's folder -> its text: tables and report, without the figures that the report shows."""
    run = Run(records, request)
    tables = {file: text for file, text in render_tables(run).items() if not file.endswith(".tex")}
    return tables | {"report.md": render_report(run, plots={})}


def digest(name: str, text: str) -> str:
    """First 16 hex digits of the SHA-256 of a text; of a CSV file the figures are rounded before."""
    if name.endswith(".csv"):
        text = "\n".join("\x00".join(map(round_figure, row)) for row in csv.reader(io.StringIO(text)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def round_figure(cell: str) -> str:
    """A decimal number to six significant digits; every other cell as it is."""
    is_decimal = re.fullmatch(r"-?\d+\.\d+(e[-+]?\d+)?|-?\d+e[-+]?\d+", cell)
    return f"{float(cell):.{SIGNIFICANT_DIGITS}g}" if is_decimal else cell


@pytest.mark.parametrize("name", EACH_RUN)
def test_a_published_run_still_gives_the_same_tables(name: str) -> None:
    held = json.loads(DIGESTS.read_text(encoding="utf-8"))
    assert {file: digest(file, text) for file, text in write_texts(name).items()} == held[name]


def test_every_published_run_has_its_digests() -> None:
    assert sorted(json.loads(DIGESTS.read_text(encoding="utf-8"))) == RUNS


def test_a_changed_figure_changes_the_digest() -> None:
    assert digest("a.csv", "x\n0.123456\n") != digest("a.csv", "x\n0.123457\n")
    assert digest("a.csv", "x\n0.12345600000000001\n") == digest("a.csv", "x\n0.12345599999999999\n")
    assert digest("a.csv", "x\n12345678\n") != digest("a.csv", "x\n12345679\n")  # a count is held exactly
    assert digest("a.md", "0.12345600000000001") != digest("a.md", "0.12345599999999999")


if __name__ == "__main__":
    taken = {name: {file: digest(file, text) for file, text in write_texts(name).items()} for name in RUNS}
    DIGESTS.write_text(json.dumps(taken, indent=1) + "\n", encoding="utf-8")
