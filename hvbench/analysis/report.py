"""A run's records -> its report: `report.md`, `tables/*.csv|md` and `plots/*.svg|png` in the run's folder.

Every figure in it is computed from the records that are given, so the same records give the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hvbench.analysis.breakdown_table import breakdown_tables
from hvbench.analysis.ceilings import ceiling_tables, describe_slow_libraries
from hvbench.analysis.frame import point_frame, varying_axes
from hvbench.analysis.links_report import break_even_table, models_of
from hvbench.analysis.panels import STYLES, describe_value, emulated_precisions, save
from hvbench.analysis.plots import all_plots
from hvbench.analysis.quality import describe_crowding, describe_quality
from hvbench.analysis.scaling import scaling_table
from hvbench.analysis.stamps import check_verdict, parity_table, render_verdict
from hvbench.analysis.stats import Estimate, describe_end, read_estimate, summarize_launches
from hvbench.analysis.tables import (
    INTERVAL,
    Table,
    convergence_table,
    describe_constants,
    escape_markdown,
    format_number,
    frame_to_csv,
    join_constants,
    memory_table,
    render_csv,
    render_markdown,
    show_value,
    throughput_table,
)
from hvbench.errors import StorageError
from hvbench.files import write_text
from hvbench.record import Record

MAX_VALUES = 4  # of one field of the environment; more are counted

TRACED = (
    "> **Horovod's timeline was recorded in this run**, which slows every step. Read the timelines (`timelines/`), and do "
    "not publish the timings."
)


def write_report(run_dir: Path, *, records: Iterable[Record], run: Mapping[str, Any]) -> list[Path]:
    """Write tables, plots and `report.md` below `run_dir`; the paths written. Raises StorageError.

    `run` is what was asked (`run.json`): `suite`, `question`, `command`, `created_at`, `hvbench_version`, `jobs`,
    `skipped`. All of it may be missing.
    """
    records = list(records)
    points = point_frame(records)
    tables = report_tables(points, records)
    figures = all_plots(records)
    texts = {f"tables/{table.name}.csv": render_csv(table) for table in tables}
    texts |= {f"tables/{table.name}.md": f"# {table.title}\n\n{render_markdown(table)}" for table in tables}
    texts["tables/launches.csv"] = frame_to_csv(points)
    titles = {name: figure.get_suptitle().splitlines()[0] for name, figure in figures.items()}
    texts["report.md"] = render_report(points, tables=tables, plots=titles, records=records, run=run)
    try:
        paths = [path for name, figure in figures.items() for path in save(figure, run_dir / "plots" / name)]
        for name, text in texts.items():
            paths.append(run_dir / name)
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            write_text(paths[-1], text, durable=False)
    except OSError as error:
        raise StorageError(f"{run_dir}: the report cannot be written: {error.strerror or error}") from None
    return sorted(paths)


def report_tables(points: pd.DataFrame, records: list[Record]) -> list[Table]:
    """Every table that these launches have something to say to, in the order in which they are read."""
    tables = [throughput_table(points), convergence_table(points), scaling_table(points)]
    tables += [break_even_table(points, models_of(points, records))]
    tables += [*breakdown_tables(points), *ceiling_tables(points), memory_table(points)]
    tables += [parity_table(records)] if any(record.parity for record in records) else []
    return [table for table in tables if table is not None]


def render_report(
    points: pd.DataFrame,
    *,
    tables: list[Table],
    plots: Mapping[str, str],
    records: list[Record],
    run: Mapping[str, Any],
) -> str:
    """`report.md`: what was run, what came out, what failed, and how to repeat it. `plots`: file stem -> title."""
    suite = escape_markdown(str(run.get("suite") or (records[0].suite if records else "a run without a name")))
    blocks = [f"# hvbench: {suite}"]
    if run.get("question"):
        blocks.append(f"*{escape_markdown(str(run['question']), limit=500)}*")
    if was_traced(records):
        blocks.append(TRACED)
    blocks += render_verdict(check_verdict(records))
    blocks += [f"> {line}" for line in describe_crowding(records)]
    if points.empty:
        blocks.append("**No launch has left a record yet**, so there is nothing to report.")
    blocks += ["## Fastest configuration of each framework", *render_fastest(points)] if len(points) else []
    blocks += describe_slow_libraries(points)
    blocks += ["## What was run", *render_request(points, run)]
    for table in tables if len(points) else []:
        blocks += [f"## {table.title}", render_markdown(table, with_constants=False).rstrip()]
        blocks.append(f"Raw values and all intervals: [{table.name}.csv](tables/{table.name}.csv)")
    if sentences := describe_quality(points, run):
        blocks += ["## How sure the figures are", "\n".join(f"- {escape_markdown(one, limit=4000)}" for one in sentences)]
    if plots:
        blocks.append("## Plots")
        blocks += [f"![{title}](plots/{name}.svg)" for name, title in plots.items()]
    blocks += ["## What failed or was skipped", *render_failures(points, run)]
    blocks += ["## Environment", *render_environment(records)] if records else []
    return "\n\n".join(blocks) + "\n"


def was_traced(records: list[Record]) -> bool:
    """Whether any worker recorded Horovod's timeline."""
    settings = [record.environment.get("horovod_settings") for record in records]
    return any(isinstance(each, Mapping) and "HOROVOD_TIMELINE" in each for each in settings)


def render_fastest(points: pd.DataFrame) -> list[str]:
    """One line per framework: its fastest point, how sure that is, and how many points it cannot be told from."""
    summary = summarize_launches(points)
    axes = [axis for axis in varying_axes(points) if axis != "framework"]
    emulated = emulated_precisions(points)
    lines = []
    for framework, rows in summary.groupby("framework", sort=False):
        label = STYLES[framework].label
        measured = [
            (row, estimate) for _, row in rows.iterrows() if (estimate := read_estimate(row, "tokens_per_second"))
        ]
        if not measured:
            lines.append(f"- **{label}**: no launch ended in `ok`.")
            continue
        row, best = max(measured, key=lambda pair: pair[1].centre)
        choice = ", ".join(describe_value(axis, row[axis], emulated=emulated) for axis in axes)
        where = escape_markdown(choice) or "the only configuration"
        others = [estimate for _, estimate in measured if estimate is not best]
        lines.append(f"- **{label}**: {where}, at {describe_estimate(best)}.{_describe_rivals(best, others)}")
    return ["\n".join(lines)]


def describe_estimate(estimate: Estimate) -> str:
    """Tokens per second with n and, if there is one, the interval."""
    centre = f"{format_number(estimate.centre)} tokens/s"
    if estimate.low is None or estimate.high is None:
        return f"{centre} (n = {estimate.n}, no interval)"
    return f"{centre} ({INTERVAL} {format_number(estimate.low)} to {format_number(estimate.high)}, n = {estimate.n})"


def render_request(points: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """The command, when it ran, and what all its points share."""
    started = sorted(points["started_at"]) if len(points) else []
    measure = run.get("measure")
    facts = {
        "asked at": run.get("created_at"),
        "launches": f"{len(points)}, from {started[0]} to {started[-1]}" if started else "none",
        "hvbench": run.get("hvbench_version"),
        "measured": ", ".join(f"{key} {show_value(value)}" for key, value in measure.items() if value is not None)
        if isinstance(measure, Mapping)
        else None,
        "same for all points": join_constants(describe_constants(points)) or None,
    }
    lines = [f"- {name}: {escape_markdown(str(value), limit=2000)}" for name, value in facts.items() if value]
    blocks = ["\n".join(lines)]
    if run.get("command"):
        # An indented block: nothing in a single line can end it.
        command = "".join(c if c.isprintable() else " " for c in str(run["command"])[:4000])
        blocks += ["To reproduce it, run the same command on the same machine and compare:", f"    {command}"]
    return blocks


def render_failures(points: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """Every launch that is not `ok`, every point that was skipped, and how many launches have no record."""
    lines = [
        f"- {escape_markdown(row['point_id'])}, launch {row['repeat']}: **{row['status']}**"
        + (f" ({escape_markdown(reason, limit=500)})" if (reason := describe_end(row)) else "")
        for _, row in points[points["status"] != "ok"].iterrows()
    ]
    skipped = run.get("skipped")
    for one in skipped if isinstance(skipped, list) else []:
        if isinstance(one, Mapping):
            name, reason = (escape_markdown(str(one.get(key, "?")), limit=500) for key in ("point_id", "reason"))
            lines.append(f"- {name}: **skipped** ({reason})")
    blocks = ["\n".join(lines)] if lines else []
    jobs = run.get("jobs")
    if isinstance(jobs, list):
        recorded = {f"{row.point_id}.r{row.repeat}" for row in points.itertuples()}
        missing = sum(1 for job in jobs if str(job) not in recorded)
        if missing:
            blocks.append(f"{missing} of {len(jobs)} planned launches have no record: the run has not finished.")
    return blocks or ["Nothing."]


def render_environment(records: list[Record]) -> list[str]:
    """A table of the records' environment: a value that all share, or the values that differ."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        fixed = {key: value for key, value in record.environment.items() if not key.startswith("load_")}
        for key, value in _flatten(fixed):  # the load differs every time: it stays in the records
            values.setdefault(key, {})[value] = None
        for rank in record.ranks:
            for key in ("host", "device", "threads"):
                values.setdefault(f"rank {key}", {})[str(getattr(rank, key))] = None
    lines = ["| field | value |", "| :--- | :--- |"]
    for key, found in sorted(values.items()):
        text = "; ".join(sorted(found)) if len(found) <= MAX_VALUES else f"{len(found)} different values"
        lines.append(f"| {escape_markdown(key)} | {escape_markdown(text, limit=300)} |")
    return ["\n".join(lines)]


def _describe_rivals(best: Estimate, others: list[Estimate]) -> str:
    if not others:
        return ""
    if best.low is None or any(other.high is None for other in others):
        return " One launch per point does not tell close points apart; repeat them to know."
    rivals = sum(1 for other in others if other.high is not None and other.high >= best.low)
    if not rivals:
        return " Its interval overlaps with no other point's."
    plural = "s" if rivals > 1 else ""
    return f" Its interval overlaps with that of {rivals} other point{plural}: the order is not certain."


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix} {key}".strip())
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(str(inner) for inner in value)
    elif value is not None:
        yield prefix, str(value)
