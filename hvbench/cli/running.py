"""What the commands do between the arguments and the output: launch, watch, report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hvbench.cli.display.choose import choose_display
from hvbench.cli.display.lines import format_duration
from hvbench.errors import HvbenchError, Interrupted, PointsFailed, StorageError, UsageError
from hvbench.io.untrusted import make_printable
from hvbench.launch.context import Context
from hvbench.launch.process import worker_environment
from hvbench.launch.session import dismiss, open_launch, resolve_context, serve_if_not_first
from hvbench.plan.estimates import describe_shortages, estimate_seconds, estimate_sweep_seconds
from hvbench.plan.jobs import make_plan
from hvbench.plan.repeats import BUDGET_SECONDS
from hvbench.records.environment import usable_memory_bytes
from hvbench.records.store import RunFolder
from hvbench.spec.knob import presets_of
from hvbench.spec.labels import tell_apart
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.run import prepare_sweep
from hvbench.training import text


def run_sweep(
    load: Callable[[], Suite],
    options: SweepOptions,
    *,
    np: int | None,
    root: Path,
    with_report: bool = True,
    trackers: Sequence[str] = (),
    output: str = "auto",
) -> int:
    """Take part in a launch, or make one; on rank 0 run the sweep and report it. Returns 0; raises HvbenchError."""
    context = resolve_context(np)
    if serve_if_not_first(context):
        return 0
    display = choose_display(output)
    try:
        suite = options.apply_to(load())
        path = options.run_path(root, suite.name)
        sweep = prepare_sweep(suite, RunFolder(path), options, world_size=context.size, observer=display)
    except BaseException:
        dismiss(context)
        raise
    host = {"memory_bytes": usable_memory_bytes(), "is_single_host": context.is_single_host}
    for line in describe_shortages(sweep.plan.jobs, limit_bytes=options.memory_limit_bytes, **host):
        display.warn(line)
    try:
        if sweep.has_work:
            with open_launch(context, run_path=path) as coordinator, display:
                coordinator.timelines = path / "timelines" if options.timeline else None
                sweep.run(coordinator, display)
        else:
            dismiss(context)  # the launcher's other ranks wait to be told
    except HvbenchError as error:
        if any(sweep.statuses.values()):
            display.show(report_what_is_there(path, context, is_hurried=isinstance(error, Interrupted)), path=path)
        raise
    display.show(write_report(path, trackers=trackers) if with_report or trackers else f"records: {path}", path=path)
    bad = {status: count for status, count in sweep.statuses.items() if status not in ("ok", "skipped")}
    if bad:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(bad.items()))
        total = sum(sweep.statuses.values())
        raise PointsFailed(f"{counts} of {total} launches did not end in ok; see {path / 'report.html'}")
    return 0


def report_what_is_there(path: Path, context: Context, *, is_hurried: bool) -> str:
    """Tables and plots of a sweep that had to end early, as far as its disk takes them; the text to show.

    A launcher that was told to stop kills its ranks within seconds, so the report is then left to a process of its own,
    in a session of its own, which no rank has as a child.
    """
    if is_hurried and context.launcher != "none":
        words = [sys.executable, "-P", "-c", "from hvbench.cli import main; main()", "report", str(path.resolve())]
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *words],
            start_new_session=True,
            env=without_launcher(),
        )
        return f"partial report: {path / 'report.html'} (in a few seconds)"
    try:
        return write_report(path)
    except (StorageError, UsageError) as error:
        return f"no report: {error}"


def without_launcher() -> dict[str, str]:
    """The environment of a process that takes part in no launch."""
    return {key: value for key, value in worker_environment({}).items() if not key.startswith("HOROVOD_")}


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


def describe_plan(suite: Suite, *, np: int | None, memory_limit_bytes: int | None = None) -> str:
    """The jobs in order, the skipped points with their reasons, what may not fit, and the rough time; raises DataError."""
    context = resolve_context(np)
    points = suite.points()
    for source in dict.fromkeys(point.data for point in points):
        text.check(source)
    plan = make_plan(points, suite.measure, world_size=context.size)
    lines = [f"{suite.name}: {suite.question}", ""]
    told = tell_apart([*(job.point for job in plan.jobs), *(each.point for each in plan.skipped)])
    for job in plan.jobs:
        lines.append(
            f"  {job.key:60}  ~{format_duration(estimate_seconds(job, suite.measure)):6}{told[job.point]}".rstrip()
        )
    lines += [f"  {each.point.point_id:60}  skipped: {each.reason}" for each in plan.skipped]
    shortages = describe_shortages(plan.jobs, memory_bytes=usable_memory_bytes(), limit_bytes=memory_limit_bytes)
    lines += ["", *(f"  warning: {line}" for line in shortages)] if shortages else []
    settings = suite.measure
    total = format_duration(estimate_sweep_seconds(plan.jobs, settings))
    if settings.precision_target is not None:
        budget = format_duration(settings.budget_seconds or BUDGET_SECONDS)
        total += f", and at most {budget} more for a precision of ± {100 * settings.precision_target:g} %"
    lines += [
        "",
        f"{len(plan.jobs)} launches of points ({settings.repeats} each) on {context.size} ranks, {len(plan.skipped)} skipped; "
        f"{settings.warmup_steps} warm-up and {settings.steps} timed steps each; roughly {total}",
    ]
    return "\n".join(lines)


def describe_fields() -> str:
    """Every field of a point and every measurement setting: name, default, meaning."""
    lines = []
    for title, model in (("[point] and [axes]", Point), ("[measure]", MeasureSettings)):
        lines.append(title)
        for name, field in model.model_fields.items():
            default = "from model" if field.is_required() else str(field.default)
            lines.append(f"  {name:28} {default:12} {field.description}")
        if model is Point:
            for optimizer, preset in presets_of(Point)["optimizer"].items():
                values = ", ".join(f"{name} {value:g}" for name, value in preset.items())
                lines += [f"  with optimizer = {optimizer}: {values}"] if values else []
    return "\n".join(lines)
