"""What a suite would run, and what can be said in a suite: the text of `hvbench plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hvbench.cli.display.lines import format_duration
from hvbench.launch.session import resolve_context
from hvbench.launch.settings import chosen_threads, require_horovod_settings
from hvbench.plan.estimates import describe_shortages, estimate_seconds, estimate_sweep_seconds
from hvbench.plan.jobs import make_plan, require_runnable
from hvbench.plan.repeats import BUDGET_SECONDS
from hvbench.plan.risks import describe_wire_risks
from hvbench.plan.together import describe_together
from hvbench.plan.turns import decide_turns, describe_site
from hvbench.records.environment import usable_cores, usable_memory_bytes
from hvbench.spec.effect import describe_idle_points
from hvbench.spec.knob import presets_of
from hvbench.spec.labels import distinguish
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.pretraining import find_pretrainings
from hvbench.training import text


def describe_plan(suite: Suite, *, np: int | None, memory_limit_bytes: int | None = None) -> str:
    """Jobs in order, skipped points with reasons, what may not fit, what the ranks reach together, rough time.

    Raises DataError for a text that cannot be read, and UsageError where no point can run, as a sweep does.
    """
    context = resolve_context(np)
    require_horovod_settings(is_launched=context.launcher != "none")
    points = suite.points()
    texts = dict.fromkeys((point.data, point.encoding) for point in points)
    losses = list(filter(None, (text.check(source, encoding=encoding) for source, encoding in texts)))
    plan = make_plan(points, suite.measure, world_size=context.size)
    require_runnable(plan, where=suite.where)
    site = describe_site(is_single_host=context.is_single_host)
    turns = decide_turns([job.point for job in plan.jobs], suite.measure, site, where=suite.where)
    plan = replace(plan, jobs=turns.arrange(plan.jobs))
    lines = [f"{suite.name}: {suite.question}", ""]
    lines += [*(f"  {line}" for line in losses), ""] if losses else []
    suffixes = distinguish([*(job.point for job in plan.jobs), *(each.point for each in plan.skipped)])
    pretrainings = find_pretrainings(plan.jobs, suite.measure, checkpoints=Path("checkpoints"))
    for each in pretrainings:
        lines.append(
            f"  {'pretraining ' + each.name:60}  ~{format_duration(each.seconds):6}  by {each.point.framework}"
        )
    for job in plan.jobs:
        lines.append(
            f"  {job.key:60}  ~{format_duration(estimate_seconds(job, suite.measure)):6}{suffixes[job.point]}".rstrip()
        )
    lines += [f"  {each.point.point_id:60}  skipped: {each.reason}" for each in plan.skipped]
    shortages = describe_shortages(plan.jobs, memory_bytes=usable_memory_bytes(), limit_bytes=memory_limit_bytes)
    warnings = [*shortages, *describe_wire_risks(plan.jobs)]
    lines += ["", *(f"  warning: {line}" for line in warnings)] if warnings else []
    lines += [f"  note: {line}" for line in describe_idle_points(dict.fromkeys(job.point for job in plan.jobs))]
    ranks = max((job.point.world_size for job in plan.jobs), default=1)
    threads = chosen_threads() or max(1, usable_cores() // context.size)
    if context.is_single_host and (together := describe_together(ranks=ranks, threads=threads)):
        lines += ["", f"  {together}"]
    lines += ["", f"  {turns.line}"] if turns.line else []
    settings = suite.measure
    seconds = estimate_sweep_seconds(plan.jobs, settings) + sum(each.seconds for each in pretrainings)
    total = format_duration(seconds)
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
