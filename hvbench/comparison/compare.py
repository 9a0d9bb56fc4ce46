"""Two or more sets of launches -> comparisons, point by point. Pure: records in, figures and words out.

What could not be compared is named: points of one side only, launches that did not end in `ok`, another machine or other
software, frameworks whose losses do not agree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hvbench.analysis.contrasts.launches import BY_STEPS, log_ratio_of_steps, time_steps
from hvbench.analysis.frame.axes import AXES, OF_SCRIPTS, PRESET_SIZES, axes_of, axis_values, plain_name
from hvbench.analysis.frame.metrics import METRICS, STEP, Metric
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.analysis.stats.ratios import log_ratios, ratio_of_pairs, welch_ratio
from hvbench.analysis.topics.parity.agreement import LOSS_TOLERANCES, compare_losses
from hvbench.analysis.topics.parity.losses import find_loss_change
from hvbench.comparison.calls import call_changes
from hvbench.comparison.operators import find_grown_operators
from hvbench.comparison.result import Change, Comparison, LaunchSet, Missing, PointComparison
from hvbench.comparison.sides import LaunchValues, collect_sides, is_joined, label_points
from hvbench.records.fingerprint import (
    FOLLOWS_FROM,
    describe_fingerprint,
    describe_own_source,
    describe_script_revision,
    find_differences,
    find_unknown,
    machine_facts,
)
from hvbench.records.record import NOT_COMPARED, NOT_PROVEN, Record
from hvbench.spec.script import ScriptPoint

LaunchPair = tuple[LaunchValues, LaunchValues]


@dataclass(frozen=True, kw_only=True)
class ExpectedDifferences:
    """What is expected to differ between the sides, and therefore is no obstacle to comparing them."""

    fields: frozenset[str] = frozenset()  # of the point
    facts: frozenset[str] = frozenset()  # of the fingerprint


def compare(
    sets: Sequence[LaunchSet],
    *,
    ignore: Collection[str] = (),
    treatment: Collection[str] = (),
) -> Comparison:
    """Join the sets by point and compare each set with the first. Sets of the same name are one side.

    Args:
        sets: launches of every side; the first set is the reference.
        ignore: fields of the point that are meant to differ; points are joined by all others.
        treatment: fields of the fingerprint that are meant to differ.

    Returns:
        The comparison, the largest clear change first. Without a word for any change where machines or software differ.
    """
    joined_over = {*ignore, *(PRESET_SIZES if "model" in ignore else ()), *find_changed_commands(sets)}
    follows = {name for field in joined_over for name in FOLLOWS_FROM.get(field, ())}
    expected = ExpectedDifferences(fields=frozenset(joined_over), facts=frozenset({*treatment, *follows}))
    sides = collect_sides(sets, joined_over=joined_over)
    labels = label_points(sets, joined_over=joined_over)
    reference, *others = sides
    missing: list[Missing] = []
    is_same_loss = joined_over <= set(OF_SCRIPTS)
    points: list[PointComparison] = []
    for name in others:
        for key in dict.fromkeys([*sides[reference], *sides[name]]):
            both = {arm: sides[arm].get(key, []) for arm in (reference, name)}
            missing += find_gaps(labels[key], both)
            good = {arm: [launch for launch in launches if launch.ended is None] for arm, launches in both.items()}
            if all(good.values()):
                points.append(compare_point(labels[key], good, expected=expected, has_same_loss=is_same_loss))
    differences = {k: v for point in points for k, v in point.differences.items()}
    called, means = (points, {}) if differences else call_changes(points)
    return Comparison(
        arms=tuple(sides),
        joined_over=list_joined(sets, joined_over=ignore),
        points=tuple(sorted(called, key=lambda point: -point.size)),
        missing=tuple(dict.fromkeys(missing)),
        differences=differences,
        means=means,
        notes=describe_sides(sets),
    )


def describe_sides(sets: Sequence[LaunchSet]) -> tuple[str, ...]:
    """Sentences on what is no obstacle: sides that another hvbench ran or that were not all in turns, facts of one side alone."""
    sources: dict[str, set[str]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for launches in sets:
        for record in launches.records:
            if record.outcome.status == "ok":
                sources.setdefault(launches.name, set()).add(describe_own_source(record) or "not recorded")
                facts.setdefault(launches.name, machine_facts(record))
    notes = []
    if len({source for found in sources.values() for source in found}) > 1:
        sides = "; ".join(f"{name}: {', '.join(sorted(found))}" for name, found in sources.items())
        notes.append(f"The sides were run by different versions of hvbench: {sides}.")
    notes += describe_scripts(sets)
    notes += describe_modes(sets)
    reference, *others = facts.values() if facts else [{}]
    unknown = list(dict.fromkeys(name for other in others for name in find_unknown(reference, other)))
    if unknown:
        notes.append(f"Recorded on one side only, so not compared: {', '.join(unknown)}.")
    return tuple(notes)


def find_changed_commands(sets: Sequence[LaunchSet]) -> tuple[str, ...]:
    """The fields of scripts to join over where each side has one command and they differ: a revision may call its options otherwise."""
    commands = list_commands(sets)
    known = {command for found in commands.values() for command in found}
    is_one_each = all(len(found) == 1 for found in commands.values())
    return OF_SCRIPTS if is_one_each and len(known) > 1 else ()


def list_commands(sets: Sequence[LaunchSet]) -> dict[str, list[str]]:
    """Side -> the commands of its scripts, with the variables that their suite sets, in the order of its records; twins have none."""
    commands: dict[str, dict[str, None]] = {}
    for launches in sets:
        for record in launches.records:
            if isinstance(record.point, ScriptPoint):
                commands.setdefault(launches.name, {})[record.point.full_command] = None
    return {name: list(found) for name, found in commands.items()}


def list_joined(sets: Sequence[LaunchSet], *, joined_over: Collection[str]) -> tuple[str, ...]:
    """The axes of the points that are meant to differ, in table order, by their plain names."""
    scripts = [record.point for launches in sets for record in launches.records if record.is_script]
    axes = axes_of([*AXES, *(name for point in scripts for name in axis_values(point))])
    return tuple(plain_name(axis) for axis in axes if is_joined(axis, joined_over))


def describe_scripts(sets: Sequence[LaunchSet]) -> list[str]:
    """Sentences on sides whose scripts are of different revisions, or have different commands."""
    sources: dict[str, set[str]] = {}
    for launches in sets:
        for record in launches.records:
            if isinstance(record.point, ScriptPoint) and record.outcome.status == "ok":
                sources.setdefault(launches.name, set()).add(describe_script_revision(record) or "not recorded")
    notes = []
    if len({source for found in sources.values() for source in found}) > 1:
        sides = "; ".join(f"{name}: {', '.join(sorted(found))}" for name, found in sources.items())
        notes.append(f"The sides ran different revisions of the script: {sides}.")
    if find_changed_commands(sets):
        sides = "; ".join(f"{name}: {found[0]}" for name, found in list_commands(sets).items())
        notes.append(f"The sides' commands differ, and points are joined by their values: {sides}.")
    return notes


def describe_modes(sets: Sequence[LaunchSet]) -> list[str]:
    """A sentence where not all launches were taken in the same mode: in turns with others, or alone on the machine."""
    modes: dict[str, set[str]] = {}
    for launches in sets:
        for record in launches.records:
            if record.outcome.status == "ok":
                mode = "in turns with others, step by step" if record.in_turns else "alone, one launch after the other"
                modes.setdefault(launches.name, set()).add(mode)
    if len({mode for found in modes.values() for mode in found}) < 2:
        return []
    sides = "; ".join(f"{name}: {' and '.join(sorted(found))}" for name, found in modes.items())
    return [f"The launches were not all measured in the same mode, which by itself may change their times: {sides}."]


def find_gaps(label: str, sides: Mapping[str, Sequence[LaunchValues]]) -> list[Missing]:
    """What a point lacks on either side: all of its launches, or those that did not end in `ok`."""
    gaps = []
    for arm, launches in sides.items():
        ended = [launch.ended for launch in launches if launch.ended]
        if not launches:
            gaps.append(Missing(label=label, arm=arm, reason="not there"))
        elif ended:
            is_only = len(ended) == len(launches) == 1
            reason = ended[0] if is_only else f"{len(ended)} of {len(launches)} launches: {ended[0]}"
            gaps.append(Missing(label=label, arm=arm, reason=reason, is_crash=True))
    return gaps


def compare_point(
    label: str, good: Mapping[str, list[LaunchValues]], *, expected: ExpectedDifferences, has_same_loss: bool
) -> PointComparison:
    """One point on two sides, from its launches that ended in `ok`.

    `has_same_loss`: both sides train the same, with another command at most.
    """
    (arm_a, a), (arm_b, b) = good.items()
    pairs = pair_launches(a, b)
    ids = (a[0].record.point_id, b[0].record.point_id)
    changes = [compare_metric(metric, a, b, pairs) for metric in METRICS]
    records = [[launch.record for launch in side] for side in (a, b)]
    mismatch, is_different = find_mismatch(*records, pairs) if "framework" in expected.fields else (None, False)
    return PointComparison(
        label=label,
        arm_a=arm_a,
        arm_b=arm_b,
        point_ids=ids,
        changes=tuple(change for change in changes if change),
        loss=find_loss_change(*records) if has_same_loss or ids[0] == ids[1] else None,
        differences=compare_fingerprints(*records, expected=expected.facts),
        operators=find_grown_operators(*records),
        mismatch=mismatch,
        is_different=is_different,
    )


def pair_launches(a: Sequence[LaunchValues], b: Sequence[LaunchValues]) -> list[LaunchPair]:
    """Launches of the same job and repeat, in order."""
    others = {(launch.job, launch.record.repeat): launch for launch in b}
    ordered = sorted(a, key=lambda launch: (launch.job, launch.record.repeat))
    keys = [(launch.job, launch.record.repeat) for launch in ordered]
    return [(launch, others[key]) for launch, key in zip(ordered, keys, strict=True) if key in others]


def compare_metric(
    metric: Metric, a: Sequence[LaunchValues], b: Sequence[LaunchValues], pairs: Sequence[LaunchPair]
) -> Change | None:
    """The change of one metric; None unless every launch has it: the launches that do may be the fortunate ones.

    Step times and rates of a pair are compared step by step.
    """
    sides = [[launch.values[metric.name] for launch in side if metric.name in launch.values] for side in (a, b)]
    if not all(sides) or len(sides[0]) < len(a) or len(sides[1]) < len(b):
        return None
    is_by_steps = bool(pairs) and metric.name in BY_STEPS
    if is_by_steps:
        steps = [[time_steps(launch.samples, metric.name) for launch in pair] for pair in pairs]
        differences = [log_ratio_of_steps(metric.name, now, before) for before, now in steps]
    elif pairs:
        differences = log_ratios(*([pair[side].values[metric.name] for pair in pairs] for side in (0, 1)))
    else:
        differences = []
    sign = 1.0 if metric.is_lower_better else -1.0
    paired = [[pair[side] for pair in pairs] or each for side, each in enumerate((a, b))]
    launched = [tuple((launch.job, launch.record.repeat) for launch in side) for side in paired]
    values = [tuple(launch.values[metric.name] for launch in side) for side in paired]
    return Change(
        metric=replace(metric, title="step time") if is_by_steps and metric.name == STEP else metric,
        a=estimate_rate(sides[0]),
        b=estimate_rate(sides[1]),
        ratio=ratio_of_pairs(differences) if pairs else welch_ratio(*sides),
        worse_by=tuple(sign * difference for difference in differences),
        launches_a=launched[0],
        launches_b=launched[1],
        values_a=values[0],
        values_b=values[1],
    )


def compare_fingerprints(
    a: Sequence[Record], b: Sequence[Record], *, expected: Collection[str]
) -> dict[str, tuple[Any, Any]]:
    """Differences of machine and software between any launch of one side and any of the other, but the `expected` ones."""
    sides = [
        {json.dumps(facts := describe_fingerprint(record), sort_keys=True, default=str): facts for record in side}
        for side in (a, b)
    ]
    found: dict[str, tuple[Any, Any]] = {}
    for before in sides[0].values():
        for now in sides[1].values():
            found |= find_differences(before, now, ignore=expected)
    return found


def find_mismatch(a: Sequence[Record], b: Sequence[Record], pairs: Sequence[LaunchPair]) -> tuple[str | None, bool]:
    """(why two frameworks' launches of one point are not proven to be the same work, whether they were seen to differ).

    (None, False) where they did the same.
    """
    stamped = [record for record in (*a, *b) if record.parity is not None]
    for record in stamped:
        if record.parity.verdict == NOT_PROVEN:
            worst = f": {record.parity.worst}" if record.parity.worst else ""
            return f"the parity check of {record.point.framework} failed{worst}", True
    compared = [(one.record, other.record) for one, other in pairs] or [(a[0], b[0])]
    largest = max(compare_losses(*pair) for pair in compared)
    allowed = LOSS_TOLERANCES[a[0].point.precision]
    if largest > allowed:
        return f"losses differ by {largest:.1e} (allowed {allowed:.0e})", True
    for record in stamped:
        if record.parity.verdict == NOT_COMPARED:
            return f"the parity check could not compare {record.point.framework}: {record.parity.problem}", False
    return None, False
