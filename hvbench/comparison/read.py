"""Runs on disk -> a comparison: reads the records, and lets `hvbench.comparison.compare` do the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.comparison.ab.pairs import read_ab
from hvbench.comparison.ab.test import compare_pairs, is_ab
from hvbench.comparison.compare import MARGIN, Comparison, LaunchSet, compare, split_by
from hvbench.comparison.runs import find_run, load_launches
from hvbench.errors import UsageError
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.point import Point


def compare_runs(runs: Sequence[str], *, by: str | None, root: Path) -> tuple[Comparison, list[str]]:
    """Compare the named runs (by point, or by all but the field `by`), and a line for each unreadable record.

    Raises UsageError and MissingData.
    """
    if by is not None and by not in Point.model_fields:
        known = list(Point.model_fields)
        raise UsageError(
            f"--by {shorten(by)}: no field of a point{did_you_mean(by, known)}; allowed: {', '.join(known)}"
        )
    sets: list[LaunchSet] = []
    problems: list[str] = []
    for number, text in enumerate(runs, start=1):
        name = text if text not in runs[: number - 1] else f"{text} ({number})"
        path = find_run(text, root=root)
        if is_ab(path):
            if len(runs) > 1:
                raise UsageError(f"{path}: holds both arms of an hvbench ab; compare it alone")
            comparison, _, unreadable = compare_pairs(read_ab(path), margin=MARGIN)
            return comparison, unreadable
        found, unreadable = load_launches(path, name=name)
        sets.append(found)
        problems += unreadable
    if by is None:
        if len(sets) < 2:
            raise UsageError("one run: name a second one to compare it with, or compare within it with --by framework")
        return compare(sets), problems
    arms = split_by(sets, by)
    values = list(dict.fromkeys(arm.name for arm in arms))
    if len(values) < 2:
        raise UsageError(f"--by {by}: all launches have {by} {', '.join(values)}; nothing to compare")
    return compare(arms, ignore={by}), problems
