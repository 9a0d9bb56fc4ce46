"""The report as one self-contained HTML page: template, style and script lie beside this file and end up inside it.

It asks the network for nothing, works from a mail attachment, and treats everything that a record says as hostile:
the template escapes, the page's policy allows no script but its own, and control characters are gone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hvbench.analysis.report.facts import (
    describe_missing,
    list_environment,
    list_failures,
    list_request,
    list_warnings,
    read_command,
)
from hvbench.analysis.report.quality import describe_quality
from hvbench.analysis.show.charts import Chart, Panel, draw_chart
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Findings
from hvbench.analysis.show.tables import NOT_AVAILABLE, Table, clean_text
from hvbench.analysis.topics.ceilings import describe_slow_libraries
from hvbench.analysis.topics.fastest import Fastest
from hvbench.analysis.topics.stamps import Verdict
from hvbench.records.record import Record

FOLDER = Path(__file__).parent
LEADING_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
LONG_CELL = 48  # characters; a longer text may wrap
MAX_ROWS = 300  # of a table on the page: some 0.2 MB
MAX_CHART_BYTES = 2_800_000  # of all charts together: with the tables, a page stays below 5 MB
BAD = ("failed", "timeout", "oom", "diverged", "interrupted", "skipped")

# Section -> what belongs to it, in the page's order. A table or figure that is not named here has a section of its own.
SECTIONS = {
    "Framework comparison": ("Frameworks", ("frameworks", "parity"), ("throughput_by_framework",)),
    "Throughput": ("Throughput", ("throughput",), ("throughput_by_",)),
    "Convergence": ("Convergence", ("convergence",), ("loss_curves",)),
    "Steadiness": ("Steadiness", (), ("step_seconds",)),
}


@dataclass(frozen=True, kw_only=True)
class Remark:
    """A sentence with the look that it has: `proven` or `warning`."""

    kind: str
    text: str


@dataclass(kw_only=True)
class Section:
    """A part of the page: charts, then tables."""

    id: str
    title: str
    short: str
    lead: Remark | None = None
    charts: list[Chart] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)


def render_page(
    points: pd.DataFrame,
    *,
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    records: Sequence[Record],
    run: Mapping[str, Any],
    findings: Findings,
    fastest: Sequence[Fastest],
    verdict: Verdict | None,
) -> str:
    """`report.html`. It changes the figures: save them to files before."""
    script, style = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    charts = limit_charts([draw_chart(name, figure) for name, figure in figures.items()])
    remark = describe_verdict(verdict)
    sections = arrange(tables if len(points) else [], charts)
    for section in sections:
        if section.title == "Framework comparison":
            section.lead = remark
    named = [Section(id="fastest", title="", short="Fastest")] if len(points) else []
    ends = (("failures", "Failures"), ("environment", "Environment"), ("reproduce", "Reproduce"))
    named_ends = [Section(id=name, title="", short=short) for name, short in ends if records or name != "environment"]
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: Markup(value.svg) if isinstance(value, Panel) else value,
    )  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        suite=clean_text(str(run.get("suite") or (records[0].suite if records else "a run without a name"))),
        question=clean_text(str(run.get("question") or ""), limit=500),
        headlines=[finding.sentence for finding in findings.headlines],
        details=[finding.sentence for finding in findings.details],
        certainty=[finding.sentence for finding in findings.certainty],
        verdict=remark,
        warnings=[
            (clean_text(title), clean_text(text, limit=4000)) for title, text in list_warnings(records, verdict=verdict)
        ],
        advice=describe_slow_libraries(points),
        quality=[clean_text(line, limit=4000) for line in describe_quality(points, run)],
        facts=list_facts(points, records=records, run=run),
        cards=fastest,
        sections=[*named, *sections, *named_ends],
        failures=show_failures(points, run),
        missing=describe_missing(points, run),
        environment=show_environment(records),
        command=read_command(run),
        request=[(name, clean_text(value, limit=2000)) for name, value in list_request(points, run).items()],
        style=Markup(style + style_frameworks()),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def style_frameworks() -> str:
    """Rules of CSS: each framework's colour in both schemes as the variable of its name, and as `--own` where it is named."""
    light, dark = (
        " ".join(f"--{name}: {getattr(style, scheme)};" for name, style in STYLES.items())
        for scheme in ("page_colour", "dark_page_colour")
    )
    own = [f".{name} {{ --own: var(--{name}); }}" for name in STYLES]
    round_marks = [
        f"td.{name}::before {{ border-radius: {'50%' if style.marker == 'o' else '1px'}; }}"
        for name, style in STYLES.items()
    ]
    schemes = [f":root {{ {light} }}", f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"]
    return "\n".join([*schemes, *own, *round_marks, ""])


def arrange(tables: Iterable[Table], charts: Iterable[Chart]) -> list[Section]:
    """Every table and chart in the section that names it, or else in one of its own; empty ones are left out."""
    sections = {title: Section(id=slug(title), title=title, short=short) for title, (short, _, _) in SECTIONS.items()}

    def place(name: str, title: str, which: int) -> Section:
        # The longest name wins: `throughput_by_framework` before `throughput_by_`.
        fitting = [
            (len(known), home) for home, names in SECTIONS.items() for known in names[which] if name.startswith(known)
        ]
        home = max(fitting)[1] if fitting else next((own for own in sections if slug(own) == slug(title)), title)
        short = " ".join(clean_text(title, limit=40).rstrip("?").split()[:3])
        return sections.setdefault(home, Section(id=slug(title), title=clean_text(title), short=short))

    for table in tables:
        if table.cells:
            place(table.name, table.title, 1).tables.append(show_table(table))
    for chart in charts:
        named = [
            section for section in sections.values() if any(table["name"] == chart.name for table in section.tables)
        ]
        (named[0] if named else place(chart.name, chart.title, 2)).charts.append(chart)
    kept = [section for section in sections.values() if section.tables or section.charts]
    own = [section for section in kept if section.title not in SECTIONS]
    known = [section for section in kept if section.title in SECTIONS]
    late = [section for section in known if section.title in ("Convergence", "Steadiness")]
    return [*(section for section in known if section not in late), *own, *late]


def limit_charts(charts: Iterable[Chart], *, most_bytes: int = MAX_CHART_BYTES) -> list[Chart]:
    """The charts as long as they fit; of any other only its title, and a note that names its file below `plots/`."""
    shown, left = [], most_bytes
    for chart in charts:
        size = sum(len(panel.svg) for panel in (*chart.panels, *chart.legend))
        if size > left:
            note = f"too large for this page, where charts take {most_bytes / 1e6:g} MB: see plots/{chart.name}.svg"
            chart = replace(chart, note="; ".join(filter(None, [chart.note, note])), panels=(), legend=())
        else:
            left -= size
        shown.append(chart)
    return shown


def show_table(table: Table) -> dict[str, Any]:
    """A Table as the template needs it: cleaned texts, the number that each cell sorts by, and the look of its rows.

    A page holds MAX_ROWS of them, and a note then names the file that has all.
    """
    rows = []
    for texts in table.cells[:MAX_ROWS]:
        cells = [
            show_cell(text, header=header, is_number=is_number)
            for text, header, is_number in zip(texts, table.header, table.is_number, strict=True)
        ]
        rows.append({"cells": cells, "is_bad": any(cell["text"].startswith(BAD) for cell in cells[-1:])})
    return {
        "name": table.name,
        "title": table.title,
        "caption": f"{table.title}: {count_rows(table.cells)}",
        "columns": [
            {"header": header, "is_number": number}
            for header, number in zip(table.header, table.is_number, strict=True)
        ],
        "rows": rows,
        "notes": [*note_rows(table.cells, file=f"tables/{table.name}.csv"), *table.notes],
    }


def count_rows(rows: Sequence[Any]) -> str:
    """`32 rows`, or `300 of 1,667 rows` where a page does not show all."""
    shown = f"{MAX_ROWS:,} of " if len(rows) > MAX_ROWS else ""
    return f"{shown}{len(rows):,} row{'' if len(rows) == 1 else 's'}"


def note_rows(rows: Sequence[Any], *, file: str) -> list[str]:
    """What to say below a table that has more rows than a page shows; nothing where all are there."""
    if len(rows) <= MAX_ROWS:
        return []
    return [f"The first {MAX_ROWS:,} of {len(rows):,} rows, which is what sorting and filtering see: {file} has all."]


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
        "columns": [{"header": each, "is_number": False} for each in header],
        "rows": [
            {"cells": [show_cell(cell, header="", is_number=False) for cell in row], "is_bad": False}
            for row in rows[:MAX_ROWS]
        ],
        "notes": note_rows(rows, file=file),
    }


def show_failures(points: pd.DataFrame, run: Mapping[str, Any]) -> dict[str, Any]:
    """What failed or was skipped, as a table."""
    rows = [
        (one.point_id, "" if one.launch is None else str(one.launch), one.status, one.reason)
        for one in list_failures(points, run)
    ]
    return plain_table(
        "failures",
        "Launches and points without a result",
        ("point", "launch", "outcome", "why"),
        rows,
        file="report.md",
    )


def show_environment(records: Sequence[Record]) -> dict[str, Any]:
    """Machine, software and settings, as a table."""
    return plain_table(
        "environment",
        "Machine, software and settings",
        ("field", "value"),
        list(list_environment(records).items()),
        file="report.md",
    )


def describe_verdict(verdict: Verdict | None) -> Remark | None:
    """Whether the frameworks may be compared; None where there is only one."""
    if verdict is None:
        return None
    return Remark(
        kind="proven" if verdict.is_proven else "warning",
        text=clean_text(f"{verdict.title} {verdict.text}", limit=4000),
    )


def list_facts(points: pd.DataFrame, *, records: Sequence[Record], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run at a glance."""
    if points.empty:
        return []
    known = list_environment(records)
    ended_ok = int((points["status"] == "ok").sum())
    cores = f", {known['usable_cores']} cores" if "usable_cores" in known else ""
    versions = [
        f"{label} {known[key]}"
        for label, key in [
            *((style.label, f"framework_versions {name}") for name, style in STYLES.items()),
            ("Horovod", "packages horovod"),
        ]
        if key in known
    ]
    facts = {
        "launches": f"{len(points)}, {'all' if ended_ok == len(points) else ended_ok} ok",
        "points": str(points["point_id"].nunique()),
        "ranks": ", ".join(str(value) for value in sorted(points["world_size"].dropna().unique())),
        "machine": f"{known.get('cpu_model') or known.get('cpu model') or ''}{cores}".strip(", "),
        "software": ", ".join(versions),
        "began": min(points["started_at"])[:16].replace("T", " "),
    }
    # The local part of a version says how it was built; the table of the environment has it.
    return [(name, re.sub(r"\+hvbench\w+", "", clean_text(value))) for name, value in facts.items() if value]


def slug(title: str) -> str:
    """A title as a name in a link."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
