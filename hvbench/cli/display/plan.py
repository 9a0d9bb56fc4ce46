"""What a suite would run, how long that takes, and what it will be able to tell: the text of `hvbench plan`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvbench.cli.display.lines import format_duration
from hvbench.io.folders import RESULTS
from hvbench.launch.session import resolve_context
from hvbench.launch.settings import chosen_threads, require_horovod_settings
from hvbench.plan.earlier import Earlier, Power, expected_seconds, find_earlier, pair_frameworks, power_of
from hvbench.plan.estimates import (
    SCRIPT_SECONDS,
    SCRIPT_STEP_SECONDS,
    describe_shortages,
    estimate_seconds,
    estimate_setup_seconds,
)
from hvbench.plan.jobs import Job, Plan, Skipped, make_plan, require_runnable
from hvbench.plan.precision import choose_aim
from hvbench.plan.repeats import BUDGET_SECONDS
from hvbench.plan.risks import describe_wire_risks
from hvbench.plan.search import TRIES, describe_search, plan_search, require_limit
from hvbench.plan.skip import is_installed
from hvbench.plan.together import describe_together
from hvbench.plan.turns import Turns, decide_turns, describe_site
from hvbench.records.environment import usable_cores, usable_memory_bytes
from hvbench.registry import FRAMEWORKS
from hvbench.spec.effect import describe_idle_points
from hvbench.spec.knob import knobs_of
from hvbench.spec.labels import describe_values, distinguish, short_name, values_of
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.script import ScriptPoint, show_variables
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.epochs import resolve_epochs
from hvbench.sweep.prepare import check_texts, compare_weights, require_script_folder
from hvbench.sweep.pretraining import Pretraining, find_pretrainings

MAX_ROWS = 60  # of the table, unless all are asked for
MAX_NAMES = 3  # of points that are skipped for one reason
MAX_CELL = 24  # characters of a value such as a path
ELSEWHERE = "No framework is installed here, so nothing of this can be launched: planned as for a place that has them (hvbench doctor)."


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How long the launches of one point take, in seconds each, and whether earlier ones say so."""

    point: AnyPoint
    launches: int
    seconds: float
    is_measured: bool


def describe_plan(suite: Suite, *, np: int | None, lists_all: bool = False) -> str:
    """A row a point with launches and time, skipped points by reason, what may not fit, time in all, what it will tell.

    Where no framework is installed, it is the plan of a place that has them. Raises DataError for a text, or a folder of weights, that
    cannot be read, and UsageError where no point can run, as a sweep does.
    """
    context = resolve_context(np)
    require_horovod_settings(is_launched=context.launcher != "none")
    points = suite.points()
    require_script_folder(suite)
    losses = check_texts([point for point in points if isinstance(point, Point)])
    is_elsewhere = not any(map(is_installed, FRAMEWORKS)) and any(isinstance(point, Point) for point in points)
    suite = resolve_epochs(suite, points, world_size=context.size, say=losses.append, assumes_frameworks=is_elsewhere)
    plan = make_plan(points, suite.measure, world_size=context.size, assumes_frameworks=is_elsewhere)
    require_runnable(plan, where=suite.where)
    losses += compare_weights(dict.fromkeys(job.point for job in plan.jobs if isinstance(job.point, Point)))
    if suite.search:
        require_limit(suite.search, suite.measure, points, where=suite.where)
        plan, _ = plan_search(plan, suite.search, suite.measure, where=suite.where)
    site = describe_site(is_single_host=context.is_single_host)
    asked = [] if suite.search else [job.point for job in plan.jobs]
    turns = decide_turns(asked, suite.measure, site, where=suite.where)
    in_turns = {job.point.point_id: turns.side_of(job.point) is not None for job in plan.jobs}
    earlier = find_earlier(plan.jobs, root=RESULTS, suite=suite.name, in_turns=in_turns)
    expected = expect(plan.jobs, suite.measure, earlier)
    if suite.search:
        expected = [replace(row, launches=TRIES - 1 + suite.measure.repeats, is_measured=False) for row in expected]
    pretrainings = find_pretrainings(plan.jobs, suite.measure, checkpoints=Path("checkpoints"))
    parts = [
        [": ".join(filter(None, (suite.name, suite.question)))],
        [ELSEWHERE] if is_elsewhere else [],
        losses,
        describe_command(suite, plan),
        describe_searched(suite),
        [*show_table(expected, lists_all=lists_all), *show_constants(plan, suite)],
        describe_skipped(plan.skipped),
        [
            f"pretraining {each.name}, about {format_duration(each.seconds)}, by {each.point.framework}"
            for each in pretrainings
        ],
        list_warnings(plan, memory_limit_bytes=suite.measure.memory_limit_bytes),
        describe_ranks(plan, np=context.size) if context.is_single_host else [],
        [turns.line] if turns.line else [],
        [] if suite.search else describe_power(suite.measure, plan, earlier),
        [
            describe_total(suite.measure, plan, np=context.size)
            if suite.search is None
            else describe_tries(plan, expected),
            describe_time(suite.measure, plan, expected, pretrainings=pretrainings, earlier=earlier)
            + describe_aim(suite.measure, plan, turns),
        ],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_command(suite: Suite, plan: Plan) -> list[str]:
    """What a script's first launch executes, as a shell would be given it, and where; nothing of hvbench's own training."""
    if suite.script is None:
        return []
    first = plan.jobs[0].point
    words = " ".join([*show_variables(first.variables()), shlex.join(first.arguments())])
    folder = os.path.normpath(suite.folder)
    return [f"each rank runs, for example, {words}", "in this folder" if folder == os.curdir else f"in {folder}"]


def expect(jobs: Sequence[Job], settings: MeasureSettings, earlier: Earlier) -> list[Expected]:
    """A row a point, in the order in which points are first launched."""
    counts: dict[AnyPoint, list[Job]] = {}
    for job in jobs:
        counts.setdefault(job.point, []).append(job)
    rows = []
    for point, same in counts.items():
        measured = expected_seconds(earlier.records.get(point.point_id, ()), settings)
        seconds = estimate_seconds(same[0], settings) if measured is None else measured
        rows.append(Expected(point=point, launches=len(same), seconds=seconds, is_measured=measured is not None))
    return rows


# The table


def show_table(rows: Sequence[Expected], *, lists_all: bool) -> list[str]:
    """Columns of what varies, launches and time; no more than MAX_ROWS rows unless all are asked for."""
    axes = varying_fields([row.point for row in rows])
    shown = rows if lists_all or len(rows) <= MAX_ROWS else rows[: MAX_ROWS - 1]
    header = [*(label_of(name) for name in axes), "launches", "time"]
    cells = [
        [*(show_value(values_of(row.point)[name]) for name in axes), str(row.launches), show_time(row)] for row in shown
    ]
    is_number = [
        *(all(isinstance(values_of(row.point)[name], int | float) for row in shown) for name in axes),
        True,
        True,
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in (header, *cells)
    ]
    if left := len(rows) - len(shown):
        values = "; ".join(f"{name} {count_values(rows, name)}" for name in axes)
        lines.append(f"… and {left:,} more points (--all lists them). What varies: {values}")
    return lines


def varying_fields(points: Sequence[AnyPoint]) -> list[str]:
    """Fields of a point with more than one value, in the order of a report's tables."""
    knobs = knobs_of(Point)

    def place(name: str) -> int:
        column = knobs[name].column if name in knobs else None
        return len(knobs) if column is None else column

    names = values_of(points[0]) if points else []
    order = names if isinstance(points[0], ScriptPoint) else sorted(names, key=place)
    return [name for name in order if len({values_of(point)[name] for point in points}) > 1]


def label_of(name: str) -> str:
    """The head of a field's column."""
    knob = knobs_of(Point).get(name)
    return knob.label or name if knob else name


def count_values(rows: Sequence[Expected], name: str) -> str:
    """The values of a field, or how many there are where they are many."""
    values = list(dict.fromkeys(show_value(values_of(row.point)[name]) for row in rows))
    return ", ".join(values) if len(values) <= 2 * MAX_NAMES else f"{len(values)} values"


def show_value(value: Any) -> str:
    """A value as a suite has it, on few characters."""
    words = describe_values({"": value}).removeprefix("=")
    return words if len(words) <= MAX_CELL else f"{words[: MAX_CELL - 1]}…"


def show_time(row: Expected) -> str:
    """All launches of a point, `~` where only an estimate says so."""
    return f"{'' if row.is_measured else '~'}{format_duration(row.launches * row.seconds)}"


def show_constants(plan: Plan, suite: Suite) -> list[str]:
    """What all points share of what the suite and the launch say, in one line."""
    points = list(dict.fromkeys(job.point for job in plan.jobs))
    varying = set(varying_fields(points))
    values = values_of(points[0])
    named = [name for name in values if name in {*suite.base, *suite.all_axes, "world_size"}]
    same = {name: values[name] for name in named if name not in varying}
    return [f"the same for all: {describe_values(same)}"] if same and len(points) > 1 else []


def describe_skipped(skipped: Sequence[Skipped]) -> list[str]:
    """A line for each reason: how many points, and which."""
    by_reason: dict[str, list[AnyPoint]] = {}
    for each in skipped:
        by_reason.setdefault(each.reason, []).append(each.point)
    suffixes = distinguish(each.point for each in skipped)
    lines = []
    for reason, points in by_reason.items():
        names = [f"{short_name(point)}{suffixes[point]}" for point in points[:MAX_NAMES]]
        more = f", … and {len(points) - MAX_NAMES} more" if len(points) > MAX_NAMES else ""
        lines.append(f"skipped: {reason}: {count(len(points), 'point')} ({', '.join(names)}{more})")
    return lines


# What may go wrong, and what the machine gives


def list_warnings(plan: Plan, *, memory_limit_bytes: int | None) -> list[str]:
    """What may not fit, what a wire's format may lose, and fields without effect."""
    shortages = describe_shortages(plan.jobs, memory_bytes=usable_memory_bytes(), limit_bytes=memory_limit_bytes)
    notes = describe_idle_points(dict.fromkeys(job.point for job in plan.jobs if isinstance(job.point, Point)))
    return [
        *(f"warning: {line}" for line in (*shortages, *describe_wire_risks(plan.jobs))),
        *(f"note: {line}" for line in notes),
    ]


def describe_ranks(plan: Plan, *, np: int) -> list[str]:
    """What the ranks of this host reach together."""
    ranks = max((job.point.world_size for job in plan.jobs), default=1)
    threads = chosen_threads() or max(1, usable_cores() // np)
    return list(filter(None, [describe_together(ranks=ranks, threads=threads)]))


# What it takes, and what it will tell


def describe_total(settings: MeasureSettings, plan: Plan, *, np: int) -> str:
    """Launches, ranks and steps."""
    return (
        f"{count(len(plan.jobs), 'launch', 'launches')} of points ({settings.repeats} each) on {count(np, 'rank')}, "
        f"{len(plan.skipped)} skipped; {settings.warmup_steps} warm-up and {settings.steps} timed steps each"
    )


def describe_searched(suite: Suite) -> list[str]:
    """What is searched, and what the table shows of it; nothing of another suite."""
    if suite.search is None:
        return []
    return [
        f"searched: {describe_search(suite.search, suite.measure)}, from the value that the estimate of memory says"
    ]


def describe_tries(plan: Plan, rows: Sequence[Expected]) -> str:
    """How many launches a search takes, about."""
    launches = sum(row.launches for row in rows)
    return f"about {count(launches, 'launch', 'launches')} for {count(len(rows), 'configuration')}, {len(plan.skipped)} skipped"


def describe_time(
    settings: MeasureSettings,
    plan: Plan,
    rows: Sequence[Expected],
    *,
    pretrainings: Sequence[Pretraining],
    earlier: Earlier,
) -> str:
    """The time in all, and what says so."""
    unknown = [job for job in plan.jobs if job.point in {row.point for row in rows if not row.is_measured}]
    seconds = sum(row.launches * row.seconds for row in rows) + sum(each.seconds for each in pretrainings)
    seconds += estimate_setup_seconds(unknown, settings)
    beside = "" if isinstance(plan.jobs[0].point, ScriptPoint) else ", the parity check before it not counted"
    return f"about {format_duration(seconds)} ({describe_basis(rows, earlier)}){beside}"


def describe_aim(settings: MeasureSettings, plan: Plan, turns: Turns) -> str:
    """`; and at most 30 min more until …`, where a precision is asked for."""
    if settings.precision_target is None:
        return ""
    aim = choose_aim(list(dict.fromkeys(job.point for job in plan.jobs)), turns)
    budget = format_duration(settings.budget_seconds or BUDGET_SECONDS)
    return f"; and at most {budget} more {aim.describe(settings.precision_target)}"


def describe_basis(rows: Sequence[Expected], earlier: Earlier) -> str:
    """What says how long the points take: estimates, earlier runs, or both."""
    known = sum(row.is_measured for row in rows)
    if not known:
        is_script = isinstance(rows[0].point, ScriptPoint)
        guess = f"a guess, {SCRIPT_STEP_SECONDS:g} s a step and {SCRIPT_SECONDS:g} s before the first: no run of it is here yet"
        return guess if is_script else "estimated from the points alone"
    measured = f"by {name_runs(earlier.runs)}"
    return measured if known == len(rows) else f"{count(known, 'point')} {measured}, the others estimated (~)"


def name_runs(runs: Sequence[Path]) -> str:
    """`this machine's run results/quickstart/2026-…`."""
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"this machine's run {os.path.normpath(runs[0])}{more}"


def describe_power(settings: MeasureSettings, plan: Plan, earlier: Earlier) -> list[str]:
    """Which difference between frameworks the suite's rounds will find; nothing where it does not compare their speed."""
    if settings.evaluate_every or not pair_frameworks(dict.fromkeys(job.point for job in plan.jobs)):
        return []
    if settings.repeats < 2:
        return ["One round says nothing about chance: it can tell no difference between frameworks; -s repeats=5 can."]
    first = list(dict.fromkeys(job.point for job in plan.jobs))
    power = power_of(earlier, [Job(point=point, repeat=0) for point in first], rounds=settings.repeats)
    if power is None:
        return [
            f"Which differences between frameworks {settings.repeats} rounds will tell is not known yet: no run of these points on "
            f"this machine, in this mode and of three rounds at least, is in {RESULTS}/."
        ]
    return [show_power(power, earlier.runs)]


def show_power(power: Power, runs: Sequence[Path]) -> str:
    """`With 6 rounds a difference of 4 % …; 5 % takes 4`."""
    found = "no difference" if power.difference is None else f"a difference of about {100 * power.difference:.2g} %"
    line = f"With {power.rounds} rounds {found} between frameworks will be found at one configuration"
    if power.of_mean is not None:
        line += f", and about {100 * power.of_mean:.2g} % over all of them"
    return (
        f"{line}, if rounds scatter as in {os.path.normpath(runs[0])} ({100 * power.spread:.2g} % a round); 5 % takes "
        f"{count(power.rounds_to_tell, 'round')}."
    )


def count(number: int, one: str, several: str | None = None) -> str:
    """`1 point`, `2 points`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
