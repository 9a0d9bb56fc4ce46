"""Published runs and the documents that quote them: reports computed again from the records, quoted tables rewritten.

    make reference        # every report below results/reference, then every quoted table

A document quotes a table between two marks, `<!-- from PATH -->` and `<!-- end -->`. PATH is where a report writes the
table; the columns after a colon and the conditions after a semicolon choose a part of it:

    <!-- from results/reference/quickstart/tables/frameworks.md: precision, n, PyTorch (tokens/s); accumulation = 1 -->
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.write import render_tables
from hvbench.communication.results import write_results
from hvbench.records.store import RunFolder

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
RUNS = sorted(path.parent for path in REFERENCE.glob("*/run.json"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "results" / "README.md",
    ROOT / "results" / "reference" / "README.md",
    ROOT / "suites" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "_generated"} & set(path.parts)),
]
QUOTE = re.compile(
    r"(?P<mark><!-- from (?P<path>results/\S+?\.md)(?:: (?P<columns>[^;\n]+?))?(?:; (?P<rows>[^\n]+?))? -->)\n"
    r"(?P<text>(?:(?!<!--).)*?)(?P<end><!-- end -->)",
    re.S,
)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A part of a published table in a document: which columns (all, if none is named) and which rows of which table."""

    path: str
    columns: tuple[str, ...]
    rows: dict[str, str]
    text: str

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Quote:
        conditions = [one.split(" = ") for one in (match["rows"] or "").split(", ") if one]
        columns = tuple((match["columns"] or "").split(", ")) if match["columns"] else ()
        return cls(path=match["path"], columns=columns, rows=dict(conditions), text=match["text"].rstrip("\n"))

    def compute(self) -> str:
        """The quoted lines as the records give them today. Raises ValueError for a column that the table lacks."""
        tables = [
            cut_table(table, columns=self.columns, rows=self.rows) for table in find_tables(read_table(self.path))
        ]
        return "\n\n".join(tables)


def read_quotes(document: Path) -> list[Quote]:
    """Every quoted table of a document, in order."""
    return [Quote.from_match(match) for match in QUOTE.finditer(document.read_text(encoding="utf-8"))]


def rewrite_quotes(document: Path) -> bool:
    """Write each quoted table as the records give it; whether that changed the document."""
    text = document.read_text(encoding="utf-8")
    new = QUOTE.sub(lambda match: f"{match['mark']}\n{Quote.from_match(match).compute()}\n{match['end']}", text)
    if new != text:
        document.write_text(new, encoding="utf-8")
    return new != text


def read_table(path: str) -> str:
    """The Markdown of a published table, `path` below the repository: from the records of its run, or from a kept file."""
    run, mark, name = path.partition("/tables/")
    if mark:
        return compute_tables(ROOT / run)[f"tables/{name}"]
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def compute_tables(run: Path) -> dict[str, str]:
    """Path below the run's folder -> text of every table (`tables/throughput.md`, `.csv`, `.tex`), from its records."""
    records, problems = RunFolder(run).read_records()
    if problems:
        raise ValueError(f"{run}: {problems[0]}")
    return render_tables(Run(records))


def find_tables(text: str) -> list[str]:
    """The Markdown tables in a text."""
    return [block.rstrip("\n") for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.M)]


def cut_table(table: str, *, columns: tuple[str, ...], rows: dict[str, str]) -> str:
    """The named columns, in the order given, of the rows whose cells are as in `rows`."""
    if not columns and not rows:
        return table
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    header, rule, *body = cells
    for name in [*columns, *rows]:
        if name not in header:
            raise ValueError(f"no column {name!r} in {header}")
    kept = [row for row in body if all(row[header.index(name)] == value for name, value in rows.items())]
    places = [header.index(name) for name in columns or header]
    return "\n".join(f"| {' | '.join(row[place] for place in places)} |" for row in [header, rule, *kept])


def write_reports() -> None:
    """What `hvbench report` and `hvbench predict` write into the folders of the published runs."""
    for run in RUNS:
        subprocess.run([sys.executable, "-m", "hvbench", "report", str(run)], check=True, stdout=subprocess.DEVNULL)
        print(run.relative_to(ROOT))
    allreduce = REFERENCE / "allreduce"
    write_results(allreduce)
    subprocess.run([sys.executable, "-m", "hvbench", "predict", str(allreduce)], check=True, stdout=subprocess.DEVNULL)
    print(allreduce.relative_to(ROOT))


def main() -> None:
    write_reports()
    for document in DOCUMENTS:
        if rewrite_quotes(document):
            print(f"{document.relative_to(ROOT)}: quoted tables rewritten")


if __name__ == "__main__":
    main()
