"""What this machine's earlier runs say of a plan: how long its points take, and how far rounds of two frameworks scatter.

Records of other machines, libraries, settings or modes say nothing about it and are left out (`hvbench.records.fingerprint`).
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvbench.errors import UsageError
from hvbench.io.folders import age_key
from hvbench.plan.jobs import Job
from hvbench.records.environment import describe_environment
from hvbench.records.fingerprint import MACHINE, find_differences, find_unknown, machine_facts, strip_settings
from hvbench.records.record import Record
from hvbench.records.store import RECORD_NAME, read_record
from hvbench.registry import FIRST
from hvbench.spec.point import Point, in_framework
from hvbench.spec.settings import MeasureSettings

if TYPE_CHECKING:
    from hvbench.analysis.stats.contrasts import Family

MAX_RUNS = 20  # the newest of a suite, and of all suites together
MAX_RECORDS = 300  # each takes milliseconds
LEAST_ROUNDS = 3
LARGEST = 1.0  # difference that is looked for: twice as fast
# Settings that a launch's time does not depend on in proportion to its steps.
BESIDE_STEPS = (
    "evaluate_every",
    "ablation_rounds",
    "noise_every",
    "checkpoint_every",
    "keep_best",
    "patience",
    "stop_at_target",
)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Launches of a plan's points that ended in `ok` on this machine: of each point those of the newest run that has it."""

    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)  # by point id
    runs: tuple[Path, ...] = ()  # that they are of, the newest first


@dataclass(frozen=True, kw_only=True)
class Power:
    """Which differences between frameworks a number of rounds tells, as shares: at one configuration, and over all of them."""

    rounds: int
    spread: float  # standard deviation of a round's ln(A/B), pooled over the configurations
    difference: float | None  # None: not even LARGEST
    of_mean: float | None  # None also where there is one configuration
    rounds_to_tell: int  # of WORTH_TELLING at one configuration


def find_earlier(jobs: Sequence[Job], *, root: Path, suite: str, in_turns: Mapping[str, bool]) -> Earlier:
    """Look in the results below `root`, first in those of `suite`, for launches of the points of `jobs` on this machine.

    `in_turns` says of each point id whether its launches are to take turns: others are no guide to their scatter.
    """
    wanted = dict.fromkeys(job.point.point_id for job in jobs)
    if not (folders := newest_runs(root, suite=suite)):
        return Earlier()
    facts = describe_environment()
    here = {name: facts[name] for name in MACHINE} | {"horovod_settings": strip_settings(facts["horovod_settings"])}
    found: dict[str, list[Record]] = {}
    runs: dict[Path, None] = {}
    read = 0
    for run in folders:
        names = {
            point_id: names
            for point_id, names in list_names(run).items()
            if point_id in wanted and point_id not in found
        }
        for point_id, files in names.items():
            if read + len(files) > MAX_RECORDS:
                return Earlier(records=found, runs=tuple(runs))
            read += len(files)
            records = list(read_launches(run / "records" / name for name in files))
            if usable := [one for one in records if one.in_turns == in_turns[point_id] and is_of_machine(one, here)]:
                found[point_id], runs[run] = usable, None
    return Earlier(records=found, runs=tuple(runs))


def newest_runs(root: Path, *, suite: str) -> list[Path]:
    """Run folders below `root`, those of `suite` first, the newest first."""

    def newest(pattern: str) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted((path.parent for path in root.glob(pattern)), key=age_key, reverse=True)[:MAX_RUNS]
        return []

    return list(dict.fromkeys([*newest(f"{escape(suite)}/*/run.json"), *newest("*/*/run.json")]))


def list_names(run: Path) -> dict[str, list[str]]:
    """Point id -> names of its records in a run's folder, in the order of its repeats."""
    names: dict[str, list[tuple[int, str]]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(run / "records"):
            if match := RECORD_NAME.fullmatch(name):
                names.setdefault(match["point_id"], []).append((int(match["repeat"]), name))
    return {point_id: [name for _, name in sorted(same)] for point_id, same in names.items()}


def read_launches(paths: Iterable[Path]) -> Iterator[Record]:
    """The launches that are evidence; what cannot be read is none."""
    for path in paths:
        with contextlib.suppress(UsageError, OSError):
            record = read_record(path)
            if record.is_measured:
                yield record


def is_of_machine(record: Record, here: Mapping[str, Any]) -> bool:
    """Whether a launch ran on the machine, and with the libraries and settings, of which these are the facts."""
    facts = machine_facts(record)
    return not find_unknown(facts, here) and not find_differences(facts, here)


def expected_seconds(records: Sequence[Record], settings: MeasureSettings) -> float | None:
    """What a launch of one point takes by its earlier launches, with the steps that `settings` ask for; None where they do not say."""
    seconds = []
    for record in records:
        before = record.measure
        if any(getattr(before, name) != getattr(settings, name) for name in BESIDE_STEPS):
            return None
        trained = [seconds for rank in record.ranks[:1] for seconds in rank.step_seconds]
        usual = statistics.median(trained[record.warmup_steps :])
        more = settings.warmup_steps + settings.steps - before.warmup_steps - before.steps
        if more and settings.evaluate_every:
            return None
        seconds.append(max(0.0, record.duration_seconds + more * usual))
    return statistics.mean(seconds) if seconds else None


def power_of(earlier: Earlier, jobs: Sequence[Job], *, rounds: int) -> Power | None:
    """What `rounds` rounds of `jobs` will tell of frameworks at the same configuration; None where nothing here says how they scatter."""
    from hvbench.analysis.contrasts.points import compare_by_round
    from hvbench.analysis.frame.run import Run
    from hvbench.analysis.stats.contrasts import judge_family, rounds_to_tell, rows_by_round

    pairs = [
        ({"point_id": one.point_id}, {"point_id": other.point_id})
        for one, other in pair_frameworks(job.point for job in jobs)
    ]
    run = Run([record for records in earlier.records.values() for record in records])
    logs = [found for found in compare_by_round(run, pairs) if len(found) >= LEAST_ROUNDS]
    if not logs:
        return None
    family = judge_family(rows_by_round(logs))
    if not family.spread.of_contrast:
        return None
    family = replace(family, spread=replace(family.spread, contrasts=len(pairs), dimensions=len(pairs)))
    return Power(
        rounds=rounds,
        spread=family.spread.of_contrast,
        difference=least_difference(family, rounds=rounds),
        of_mean=least_difference(family, rounds=rounds, of_mean=True)
        if len(pairs) > 1 and family.spread.of_mean
        else None,
        rounds_to_tell=rounds_to_tell(family),
    )


def pair_frameworks(points: Iterable[Point]) -> list[tuple[Point, Point]]:
    """Points of two frameworks at the same configuration: the first framework of each configuration against each other one."""
    by_configuration: dict[Point, dict[str, Point]] = {}
    for point in points:
        by_configuration.setdefault(in_framework(point, FIRST), {})[point.framework] = point
    return [
        (first, other)
        for first, *others in (list(same.values()) for same in by_configuration.values())
        for other in others
    ]


def least_difference(family: Family, *, rounds: int, of_mean: bool = False) -> float | None:
    """The smallest difference that so many rounds find with the rule's power, to a thousandth; None where it is above LARGEST."""
    from hvbench.analysis.stats.contrasts import rounds_to_tell

    low, high = 0, round(1000 * LARGEST)
    if rounds_to_tell(family, difference=LARGEST, of_mean=of_mean) > rounds:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = rounds_to_tell(family, difference=middle / 1000, of_mean=of_mean) <= rounds
        low, high = (low, middle) if is_enough else (middle, high)
    return high / 1000
