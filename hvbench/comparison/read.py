"""Runs on disk -> a comparison, a verdict or a history: reads the records, and lets the pure modules do the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.analysis.frame.axes import axis_values, is_own, plain_name
from hvbench.analysis.frame.metrics import METRICS, Metric
from hvbench.comparison.ab.judge import compare_pairs, is_ab, judge_folder
from hvbench.comparison.ab.pairs import read_ab
from hvbench.comparison.baseline import judge_against_baseline
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.history import History, trace
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.comparison.runs import find_run, list_runs, load_launches
from hvbench.comparison.sides import split_by
from hvbench.errors import MissingData, UsageError
from hvbench.records.fingerprint import fingerprint_id
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.point import Point


def compare_runs(runs: Sequence[str], *, by: str | None, root: Path) -> tuple[Comparison, list[str]]:
    """Compare the named runs (by point, or by all but the field `by`), and a line for each unreadable record.

    Raises UsageError and MissingData.
    """
    sets: list[LaunchSet] = []
    problems: list[str] = []
    for number, text in enumerate(runs, start=1):
        name = text if text not in runs[: number - 1] else f"{text} ({number})"
        path = find_run(text, root=root)
        if is_ab(path):
            if len(runs) > 1:
                raise UsageError(f"{path}: holds both arms of an hvbench ab; compare it alone")
            comparison, _, unreadable = compare_pairs(read_ab(path))
            return comparison, unreadable
        found, unreadable = load_launches(path, name=name)
        sets.append(found)
        problems += unreadable
    if by is None:
        if len(sets) < 2:
            raise UsageError("one run: name a second one to compare it with, or compare within it with --by framework")
        return compare(sets), problems
    axis = find_axis(by, sets)
    arms = split_by(sets, axis)
    values = list(dict.fromkeys(arm.name for arm in arms))
    if len(values) < 2:
        raise UsageError(f"--by {by}: all launches have {by} {', '.join(values)}; nothing to compare")
    return compare(arms, ignore={axis}), problems


def find_axis(name: str, sets: Sequence[LaunchSet]) -> str:
    """The axis that is called so, with braces or without where it is a script's own; raises UsageError."""
    records = [record for launches in sets for record in launches.records]
    own = dict.fromkeys(axis for record in records for axis in axis_values(record.point) if is_own(axis))
    of_scripts = {plain_name(axis): axis for axis in own}
    if name in own or name in of_scripts:
        return of_scripts.get(name, name)
    has_twins = any(not record.is_script for record in records)
    known = [*of_scripts, *(Point.model_fields if has_twins else ("world_size", "seed"))]
    if name in known:
        return name
    raise UsageError(
        f"--by {shorten(name)}: no field of a point{did_you_mean(name, known)}; allowed: {', '.join(known)}"
    )


def judge_stored(
    run: str, *, against: str | None, root: Path, policy: Policy, today: str
) -> tuple[Judgement, list[str]]:
    """The verdict over a stored run: its pairs if it is an `hvbench ab`, else against a baseline.

    Args:
        run: a folder, or a name such as `smoke@latest`.
        against: the run to compare with; None: the stored baseline of its suite on its machine.
        root: the folder of all results.
        policy: margins, metrics and accepted regressions.
        today: ISO 8601; accepted regressions end on a day.

    Returns:
        The verdict, and a line for each unreadable record.

    Raises:
        UsageError, MissingData: a run or a baseline is not what it has to be, or is not there.
        NotComparable: the only baselines are of other machines or software.
    """
    path = find_run(run, root=root)
    if is_ab(path):
        return judge_folder(path, policy=policy, today=today)
    baseline = find_run(against, root=root) if against else None
    return judge_against_baseline(path, root=root, policy=policy, today=today, baseline=baseline)


def read_history(metric: str, *, suite: str, fingerprint: str | None, root: Path) -> History:
    """`metric` of every point over the stored runs of `suite` on one machine with one set of software, oldest first.

    Args:
        metric: the name of a metric.
        suite: whose runs below `root`.
        fingerprint: of the machine and software; None: that of the newest run.
        root: the folder of all results.

    Raises:
        UsageError: there is no such metric.
        MissingData: there is no such run.
    """
    chosen = find_metric(metric)
    runs, problems = list_runs(root, suite)
    if not runs:
        unreadable = f" with a readable record ({problems[0]})" if problems else ""
        raise MissingData(f"no run of {suite}{unreadable} below {root}; make one with hvbench sweep {suite}")
    found = [{fingerprint_id(record) for record in launches.records} for _, _, launches in runs]
    wanted = fingerprint or fingerprint_id(runs[-1][2].records[-1])
    same = [
        (name, at, launches.records) for (name, at, launches), ids in zip(runs, found, strict=True) if wanted in ids
    ]
    if not same:
        known = ", ".join(sorted(set().union(*found)))
        raise MissingData(f"no run of {suite} has the fingerprint {wanted}; there are {known}")
    lines = tuple(trace(same, chosen))
    if not lines:
        needs = f", which needs {chosen.needs}" if chosen.needs else ""
        raise MissingData(f"no launch of {suite} on {wanted} ended in ok with a {chosen.title}{needs}")
    return History(
        metric=chosen,
        suite=suite,
        fingerprint=wanted,
        runs=len(same),
        other_runs=len(runs) - len(same),
        lines=lines,
        problems=tuple(problems),
    )


def find_metric(name: str) -> Metric:
    """The metric of that name; raises UsageError."""
    known = {metric.name: metric for metric in METRICS}
    if name not in known:
        raise UsageError(
            f"unknown metric {shorten(name)}{did_you_mean(name, list(known))}; allowed: {', '.join(known)}"
        )
    return known[name]
