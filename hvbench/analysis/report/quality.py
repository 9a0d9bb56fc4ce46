"""How far a run's figures can be trusted: precision reached, leftover warm-up, correlated steps, crowded cores.

Each check is a function from frames or records to sentences, most of them none when there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.contrasts.precision import half_width_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.wall import TIMED, spend_wall
from hvbench.analysis.show.cells import format_percent
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.estimates import estimate_mean, estimate_rate, read_estimate, summary_rows
from hvbench.analysis.topics.frameworks import contrast_frameworks
from hvbench.analysis.topics.throughput.pairs import describe_point
from hvbench.records.fingerprint import describe_own_source, describe_script_revision
from hvbench.records.record import Record
from hvbench.registry import FRAMEWORKS, SCRIPT

# The first timed step against the others: more than this, and surely above 1, is a trend; surely less is none.
LEFTOVER_WARMUP = 1.05
LARGE_AUTOCORRELATION = 0.5
OF_RATIOS = "ratios"  # run.json's word where frameworks take turns, see `hvbench.plan.precision`
SMALL_PART = 0.01  # of the wall time: not named
MIN_STEPS_FOR_AUTOCORRELATION = 8  # over fewer its expectation for independent steps, -1/n, is no longer near 0


def describe_quality(run: Run) -> list[str]:
    """What a reader should know before believing the figures of a run, one sentence a fact."""
    return [
        *describe_turns(run.records),
        *describe_target_precision(run),
        *describe_warmup(run.points),
        *describe_autocorrelation(run.points),
        *describe_unmeasured_ranks(run.points),
        *describe_wall_time(run.records),
    ]


def describe_turns(records: Sequence[Record]) -> list[str]:
    """How many launches were taken in turns with another framework's; nothing where none was."""
    measured = [record for record in records if record.is_measured]
    count = sum(record.in_turns for record in measured)
    if not count:
        return []
    which = "All" if count == len(measured) else f"{count} of {len(measured)}"
    workers = "their processes" if all(record.is_script for record in measured) else "the frameworks' workers"
    return [f"{which} launches were measured side by side: {workers} took turns, step by step."]


def describe_target_precision(run: Run) -> list[str]:
    """How many figures are as precise as the run was asked for: ratios of frameworks that took turns, else the points' tokens/s."""
    measure = run.request.get("measure")
    target = measure.get("precision_target") if isinstance(measure, Mapping) else None
    if not isinstance(target, float):
        return []
    is_of_ratios = run.request.get("precision_aim") == OF_RATIOS
    return describe_precision_of_ratios(run, target) if is_of_ratios else describe_precision(run, target)


def describe_precision(run: Run, target: float) -> list[str]:
    """How many points' speeds are known to ± `target`, and which are not."""
    widths = {}
    for row in summary_rows(run):
        estimate = read_estimate(row, run.speed.column)
        width = np.inf if estimate is None else estimate.relative_half_width
        widths[str(row["point_id"])] = (width, f"n = {row['launches_ok']}")
    return _describe_reached("points", widths, target)


def describe_precision_of_ratios(run: Run, target: float) -> list[str]:
    """How many configurations' ratios of two frameworks are known to ± `target`, by their corrected intervals, and which are not."""
    widths, unmeasured = {}, 0
    for rivals in contrast_frameworks(run):
        unmeasured += rivals.unmeasured
        names = f"{STYLES[rivals.one].label} / {STYLES[rivals.other].label}"
        for each in rivals.family.contrasts:
            where = describe_point(each.one, run.other_axes)
            rounds = f"{each.contrast.rounds} round{'s' * (each.contrast.rounds != 1)}"
            widths[f"{names} with {where}" if where else names] = (half_width_of(each.contrast), rounds)
    found = _describe_reached("ratios of the frameworks' tokens/s", widths, target)
    lost = f"In {unmeasured} configuration{'s' * (unmeasured > 1)} there is no such ratio, for no launch of one framework ended in ok."
    return [*found, *([lost] if unmeasured else [])]


def _describe_reached(things: str, widths: Mapping[str, tuple[float, str]], target: float) -> list[str]:
    """`2 of 3 points reached the precision target of ± 2 %; not: …`, of name -> (half width, evidence)."""
    wide = [
        f"{name} ({f'± {format_percent(width)} %' if np.isfinite(width) else 'no interval'}, {evidence})"
        for name, (width, evidence) in widths.items()
        if width > target
    ]
    reached = (
        f"{len(widths) - len(wide)} of {len(widths)} {things} reached the precision target of ± {100 * target:g} %"
    )
    return [f"{reached}; not: {'; '.join(wide)}." if wide else f"{reached}."] if widths else []


def describe_warmup(points: pd.DataFrame) -> list[str]:
    """Per framework, and of scripts, whether the first timed step is still slower than the others: then the warm-up was too short.

    The launches of all points are taken together. One step against a median: where steps scatter to one side, the
    ratio lies a little above 1 without any trend, hence the margin.
    """
    lines = []
    for framework in (*FRAMEWORKS, SCRIPT):
        mine = points[(points["framework"] == framework) & (points["status"] == "ok")]
        values = mine["first_timed_step_ratio"].dropna().to_numpy(dtype=float)
        if not values.size:
            continue
        ratio = estimate_rate(values)
        bounds = "no interval"
        if ratio.low is not None:
            bounds = f"{CONFIDENCE * 100:g} % interval {ratio.low:.3f} to {ratio.high:.3f}"
        verdict = "too few or too scattered to say more"
        if ratio.low is not None and ratio.low > 1 and ratio.centre > LEFTOVER_WARMUP:
            verdict = "a leftover of the warm-up: raise warmup_steps"
        elif ratio.high is not None and ratio.high < LEFTOVER_WARMUP:
            verdict = "no leftover of the warm-up"
        figures = f"{ratio.centre:.3f} ({bounds}, n = {ratio.n} launches)"
        what = "First timed step" if framework == SCRIPT else f"{framework}: first timed step"
        lines.append(f"{what} / median of the other timed steps: {figures}: {verdict}.")
    return lines


def describe_autocorrelation(points: pd.DataFrame) -> list[str]:
    """A warning where consecutive timed steps resemble each other, as they do when something drifts within a launch."""
    enough = points[(points["status"] == "ok") & (points["timed_steps"] >= MIN_STEPS_FOR_AUTOCORRELATION)]
    known = enough.dropna(subset=["step_seconds_autocorrelation"])
    found = []
    for point_id, group in known.groupby("point_id", sort=False):
        estimate = estimate_mean(group["step_seconds_autocorrelation"].to_numpy(dtype=float))
        if abs(estimate.centre) > LARGE_AUTOCORRELATION:
            found.append(f"{point_id} ({estimate.centre:.2f}, n = {estimate.n} launches)")
    if not found:
        return []
    return [
        f"Consecutive steps are not independent (lag-1 autocorrelation beyond ± {LARGE_AUTOCORRELATION}) in "
        f"{len(found)} of {known['point_id'].nunique()} points: {'; '.join(found)}. Their number then does not say how "
        "much they tell; the intervals are over launches and stay valid."
    ]


def describe_unmeasured_ranks(points: pd.DataFrame) -> list[str]:
    """A line where several ranks trained and nobody measured what they reach together, as nobody did before schema 4."""
    several = points[(points["status"] == "ok") & (points["world_size"] > 1) & (points["framework"] != SCRIPT)]
    unknown = several.groupby("world_size")["ranks_together_ratio"].count()
    ranks = ", ".join(str(world_size) for world_size in unknown.index[unknown == 0])
    if not ranks:
        return []
    return [
        f"What {ranks} ranks reach together was not measured (ceilings = true does): where cores share what multiplies, it is "
        "less than as many times what one rank reaches, whatever the framework."
    ]


def describe_wall_time(records: Sequence[Record]) -> list[str]:
    """How much of the launches' wall time were timed steps, and where the rest went, the largest part first."""
    wall = spend_wall(records)
    if wall is None or not wall.parts[TIMED]:
        return []
    others = [
        f"{name} {format_percent(seconds / wall.seconds)} %"
        for name, seconds in wall.parts.items()
        if name != TIMED and seconds >= SMALL_PART * wall.seconds
    ]
    where = f"; {', '.join(others)}" if others else ""
    return [
        f"{format_percent(wall.timed_share)} % of the {wall.seconds:,.0f} s from the first launch's begin to the last one's end "
        f"were timed steps{where}."
    ]


def describe_sources(records: Iterable[Record]) -> list[str]:
    """A warning where different versions of hvbench, or of a script, ran the launches: what they share is the machine, not the program."""
    records = list(records)
    whose = {"versions of hvbench": describe_own_source, "revisions of the script": describe_script_revision}
    lines = []
    for what, describe in whose.items():
        found = sorted({source for record in records if (source := describe(record))})
        lines += [f"Different {what} ran these launches: {'; '.join(found)}."] if len(found) > 1 else []
    return lines


def describe_crowding(records: Iterable[Record]) -> list[str]:
    """A warning where more ranks shared a host than it has cores: they waited for each other, whatever the framework."""
    crowded: dict[tuple[int, int], None] = {}
    for record in records:
        cores = count_cores(record.environment)
        hosts = [rank.host for rank in record.ranks if rank.device == "cpu"]
        most = max(map(hosts.count, set(hosts)), default=0)
        if cores and most > cores:
            crowded[most, cores] = None
    return [
        f"{ranks} ranks shared the {cores} core{'s' * (cores > 1)} of a host: they took turns, so their figures say "
        "nothing about scaling."
        for ranks, cores in sorted(crowded)
    ]


def count_cores(environment: Mapping[str, Any]) -> int | None:
    """Cores of the host that wrote the record, as its control group allows; None where unknown."""
    limits = [environment.get(name) for name in ("cpu_cores", "cgroup_cpuset_cores", "cgroup_cpu_quota")]
    known = [limit for limit in limits if isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0]
    return max(1, int(min(known))) if known else None
