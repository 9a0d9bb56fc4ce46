"""A run's records -> its report: `report.html`, `report.md`, `tables/*.csv|md` and `plots/*.svg|png` in the run's folder.

Every figure in it is computed from the records that are given, so the same records give the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.report.facts import (
    describe_missing,
    list_environment,
    list_failures,
    list_request,
    list_warnings,
    read_command,
)
from hvbench.analysis.report.page import render_page
from hvbench.analysis.report.quality import describe_quality
from hvbench.analysis.show.exports import render_latex, require_parquet, write_parquet
from hvbench.analysis.show.panels import own_style, save
from hvbench.analysis.show.sentences import Findings
from hvbench.analysis.show.tables import (
    Table,
    convergence_table,
    escape_markdown,
    frame_to_csv,
    memory_table,
    render_csv,
    render_markdown,
    throughput_table,
)
from hvbench.analysis.topics.breakdown_table import breakdown_tables
from hvbench.analysis.topics.ceilings import ceiling_tables, describe_slow_libraries
from hvbench.analysis.topics.fastest import Fastest, list_fastest
from hvbench.analysis.topics.findings import find_all
from hvbench.analysis.topics.frameworks import framework_table
from hvbench.analysis.topics.links_findings import describe_break_evens
from hvbench.analysis.topics.links_report import break_even_table, models_of
from hvbench.analysis.topics.links_table import links_table
from hvbench.analysis.topics.noise import noise_table
from hvbench.analysis.topics.overflows import overflow_table
from hvbench.analysis.topics.plots import all_plots
from hvbench.analysis.topics.scaling import scaling_table
from hvbench.analysis.topics.stamps import Verdict, check_verdict, parity_table
from hvbench.analysis.topics.strategies import strategy_table
from hvbench.analysis.topics.targets import target_table
from hvbench.analysis.topics.tradeoff import tradeoff_table
from hvbench.errors import StorageError
from hvbench.io.atomic import write_text
from hvbench.records.record import Record

ALWAYS = ("throughput", "convergence")  # tables that are written even with nothing in them


def write_report(
    run_dir: Path,
    *,
    records: Iterable[Record],
    run: Mapping[str, Any],
    style: Path | None = None,
    with_parquet: bool = False,
) -> list[Path]:
    """Write tables, plots, `report.md` and `report.html` below `run_dir`; the paths written. Raises StorageError.

    `run` is what was asked (`run.json`): `suite`, `question`, `command`, `created_at`, `hvbench_version`, `jobs`,
    `skipped`. All of it may be missing. `style` is a file of matplotlib settings for the plots.
    """
    records = list(records)
    points = point_frame(records)
    tables = report_tables(points, records)
    if with_parquet:
        require_parquet()
    with own_style(style):
        return _write_all(run_dir, records, tables=tables, points=points, run=run, with_parquet=with_parquet)


def _write_all(
    run_dir: Path,
    records: list[Record],
    *,
    tables: list[Table],
    points: pd.DataFrame,
    run: Mapping[str, Any],
    with_parquet: bool,
) -> list[Path]:
    figures = all_plots(records, points=points)
    verdict = check_verdict(records)
    told = {
        "findings": find_all(points, verdict=verdict, answers=describe_break_evens(models_of(points, records))),
        "fastest": list_fastest(points),
        "verdict": verdict,
    }
    texts = {f"tables/{table.name}.csv": render_csv(table) for table in tables}
    texts |= {f"tables/{table.name}.md": f"# {table.title}\n\n{render_markdown(table)}" for table in tables}
    texts |= {f"tables/{table.name}.tex": render_latex(table) for table in tables if table.cells}
    texts["tables/launches.csv"] = frame_to_csv(points)
    titles = {name: figure.get_suptitle().splitlines()[0] for name, figure in figures.items()}
    texts["report.md"] = render_report(points, tables=tables, plots=titles, records=records, run=run, **told)
    try:
        paths = [path for name, figure in figures.items() for path in save(figure, run_dir / "plots" / name)]
        texts["report.html"] = render_page(points, tables=tables, figures=figures, records=records, run=run, **told)
        for name, text in texts.items():
            paths.append(run_dir / name)
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            write_text(paths[-1], text, durable=False)
        frames = {"launches": points, **{table.name: table.data for table in tables}} if with_parquet else {}
        for name, frame in frames.items():
            paths.append(write_parquet(frame, run_dir / "tables" / f"{name}.parquet"))
    except OSError as error:
        raise StorageError(f"{run_dir}: the report cannot be written: {error.strerror or error}") from None
    return sorted(paths)


def report_tables(points: pd.DataFrame, records: list[Record]) -> list[Table]:
    """Every table that these launches have something to say to, in the order in which they are read."""
    tables = [framework_table(points), throughput_table(points), convergence_table(points), target_table(points)]
    tables += [tradeoff_table(points, records), noise_table(records), overflow_table(records), scaling_table(points)]
    tables += [strategy_table(points), break_even_table(points, models_of(points, records)), links_table(points)]
    tables += [*breakdown_tables(points), *ceiling_tables(points), memory_table(points)]
    tables += [parity_table(records)] if any(record.parity for record in records) else []
    return [table for table in tables if table is not None and (table.cells or table.name in ALWAYS)]


def render_report(
    points: pd.DataFrame,
    *,
    tables: list[Table],
    plots: Mapping[str, str],
    records: list[Record],
    run: Mapping[str, Any],
    findings: Findings,
    fastest: Sequence[Fastest],
    verdict: Verdict | None,
) -> str:
    """`report.md`: what was run, what came out, what failed, and how to repeat it. `plots`: file stem -> title."""
    suite = escape_markdown(str(run.get("suite") or (records[0].suite if records else "a run without a name")))
    blocks = [f"# hvbench: {suite}"]
    if run.get("question"):
        blocks.append(f"*{escape_markdown(str(run['question']), limit=500)}*")
    blocks += [f"> {text}" for text in render_warnings(records, verdict)]
    if len(points):
        blocks += ["## The answer", *(escape_markdown(finding.sentence, limit=2000) for finding in findings.headlines)]
        details = [*findings.details, *findings.certainty]
        blocks += (
            ["\n".join(f"- {escape_markdown(finding.sentence, limit=2000)}" for finding in details)] if details else []
        )
    if verdict and verdict.is_proven:
        blocks.append(escape_markdown(f"{verdict.title} {verdict.text}", limit=4000))
    if points.empty:
        blocks.append("**No launch has left a record yet**, so there is nothing to report.")
    blocks += ["## Fastest configuration of each framework", render_fastest(fastest)] if len(points) else []
    blocks += describe_slow_libraries(points)
    blocks += ["## What was run", *render_request(points, run)]
    for table in tables if len(points) else []:
        blocks += [f"## {table.title}", render_markdown(table, with_constants=False).rstrip()]
        blocks.append(f"Raw values and all intervals: [{table.name}.csv](tables/{table.name}.csv)")
    if sentences := describe_quality(points, run):
        blocks += [
            "## How sure the figures are",
            "\n".join(f"- {escape_markdown(one, limit=4000)}" for one in sentences),
        ]
    if plots:
        blocks.append("## Plots")
        blocks += [f"![{title}](plots/{name}.svg)" for name, title in plots.items()]
    blocks += ["## What failed or was skipped", *render_failures(points, run)]
    blocks += ["## Environment", *render_environment(records)] if records else []
    return "\n\n".join(blocks) + "\n"


def render_warnings(records: list[Record], verdict: Verdict | None) -> list[str]:
    """What must be known before any figure is read, each as one line of Markdown."""
    parts = [
        (escape_markdown(title), escape_markdown(text, limit=4000))
        for title, text in list_warnings(records, verdict=verdict)
    ]
    return [f"**{title}** {text}" if title else text for title, text in parts]


def render_fastest(fastest: Sequence[Fastest]) -> str:
    """One line per framework: its fastest point, how sure that is, and how many points it can be told from."""
    lines = []
    for each in fastest:
        text = f"{escape_markdown(each.where)}, at {each.rate} tokens/s ({each.interval}). {each.note}".rstrip()
        lines.append(f"- **{each.label}**: {text if each.rate else 'no launch ended in `ok`.'}")
    return "\n".join(lines)


def render_request(points: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """The command, when it ran, and what all its points share."""
    lines = [f"- {name}: {escape_markdown(value, limit=2000)}" for name, value in list_request(points, run).items()]
    blocks = ["\n".join(lines)]
    if command := read_command(run):
        # An indented block: nothing in a single line can end it.
        blocks += ["To reproduce it, run the same command on the same machine and compare:", f"    {command}"]
    return blocks


def render_failures(points: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """Every launch that is not `ok`, every point that was skipped, and how many launches have no record."""
    lines = []
    for failure in list_failures(points, run):
        launch = "" if failure.launch is None else f", launch {failure.launch}"
        reason = f" ({escape_markdown(failure.reason, limit=500)})" if failure.reason else ""
        lines.append(f"- {escape_markdown(failure.point_id, limit=500)}{launch}: **{failure.status}**{reason}")
    missing = describe_missing(points, run)
    return [*(["\n".join(lines)] if lines else []), *([missing] if missing else [])] or ["Nothing."]


def render_environment(records: list[Record]) -> list[str]:
    """A table of the records' environment: a value that all share, or the values that differ."""
    lines = ["| field | value |", "| :--- | :--- |"]
    for key, text in list_environment(records).items():
        lines.append(f"| {escape_markdown(key)} | {escape_markdown(text, limit=300)} |")
    return ["\n".join(lines)]
