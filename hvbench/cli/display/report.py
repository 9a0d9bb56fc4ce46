"""What a person reads when a run has ended: the tables that answer its question, and where the report lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.io.untrusted import make_printable
from hvbench.records.store import RunFolder


def write_report(
    path: Path, *, style: Path | None = None, with_parquet: bool = False, trackers: Sequence[str] = ()
) -> str:
    """Rebuild everything that follows from a run's records; the text to show."""
    from hvbench import tracking
    from hvbench.analysis.frame import frames as frame
    from hvbench.analysis.report import markdown as report
    from hvbench.analysis.report import quality
    from hvbench.analysis.show import tables
    from hvbench.analysis.topics import breakdown_table, stamps, targets, tradeoff

    folder = RunFolder(path)
    run = folder.read_run()
    records, problems = folder.read_records()
    report.write_report(path, records=records, run=run, style=style, with_parquet=with_parquet)
    lines = [make_printable(f"not a readable record: {problem}") for problem in problems]
    if records:
        points = frame.point_frame(records)
        lines += ["", tables.render_text(tables.throughput_table(points))]
        if any(record.measure.evaluate_every for record in records):
            lines += ["", tables.render_text(tables.convergence_table(points))]
        for table in (targets.target_table(points), tradeoff.tradeoff_table(points, records)):
            lines += ["", tables.render_text(table)] if table else []
        if breakdown_table.has_breakdown(points):
            lines += ["", tables.render_text(breakdown_table.breakdown_table(points))]
        verdict = stamps.check_verdict(records)
        if verdict and not verdict.is_proven:
            lines += ["", tables.clean_text(f"{verdict.title} {verdict.text}", limit=2000)]
        target = run["measure"].get("precision_target") if isinstance(run.get("measure"), dict) else None
        if isinstance(target, float):
            lines += ["", *(tables.clean_text(line, limit=4000) for line in quality.describe_precision(points, target))]
    tracked = [f"tracked: {line}" for line in tracking.track(path, records, trackers)]
    return "\n".join([*lines, "", *tracked, f"report: {path / 'report.html'}"])
