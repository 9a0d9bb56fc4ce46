"""The axes of a suite: lists of values, of which a suite takes all combinations, or those that go together, the first with the first.

Such as lengths, and the micro-batches that make as many tokens of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hvbench.errors import UsageError
from hvbench.spec.fields import Fields
from hvbench.spec.messages import shorten

Group = Mapping[str, list[Any]]  # axis -> its values, as many for each

MAX_POINTS = 10_000


def list_rows(group: Group) -> list[dict[str, Any]]:
    """What may be chosen of a group: fields and their values."""
    return [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)]


def join_axes(axes: Mapping[str, list[Any]], groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Axis -> its values, of those that go together, too."""
    return {**axes, **{name: values for group in groups for name, values in group.items()}}


def check_axes(axes: Mapping[str, Any], fields: Fields, *, where: str) -> None:
    """Raise UsageError unless every axis is a key with a list of distinct, valid values, and the product is small enough."""
    fields.check_names(axes, where=where)
    count = 1
    for key, choices in axes.items():
        if not isinstance(choices, list):
            raise UsageError(
                f"{where} {key} = {shorten(choices)}: must be a list, for example {key} = [{shorten(choices)}]"
            )
        if not choices:
            raise UsageError(f"{where} {key} = []: an axis needs at least one value")
        if len(choices) > MAX_POINTS:
            raise UsageError(f"{where} {key}: more than {MAX_POINTS} values; split the question into several suites")
        seen = set()
        for choice in choices:
            fields.check({key: choice}, where=where)
            if choice in seen:
                raise UsageError(f"{where} {key}: {shorten(choice)} is listed twice")
            seen.add(choice)
        fields.check_choices(key, choices, where=where)
        count *= len(choices)
        if count > MAX_POINTS:
            raise UsageError(f"{where}: more than {MAX_POINTS} combinations; split the question into several suites")


def check_exclude(excluded: Any, fields: Fields, *, where: str) -> None:
    """An exclusion is a non-empty table of keys with valid values."""
    if not isinstance(excluded, dict) or not excluded:
        raise UsageError(f"{where}: {shorten(excluded)}: must be a table with at least one key")
    fields.check(excluded, where=where)


def check_together(
    groups: Sequence[Any], axes: Mapping[str, Any], base: Mapping[str, Any], fields: Fields, *, where: str, prefix: str
) -> None:
    """Raise UsageError unless each group has two axes or more, of one length, that are set nowhere else."""
    taken: dict[str, str] = {name: f"[{prefix}axes]" for name in axes} | {name: f"[{prefix}point]" for name in base}
    for index, group in enumerate(groups):
        place = f"[[{prefix}together]] number {index + 1}"
        if not isinstance(group, dict) or len(group) < 2:
            raise UsageError(
                f"{where}: {place}: {shorten(group)}: must be a table of two axes or more, whose values go together"
            )
        fields.check_names(group, where=f"{where}: {place}")
        lengths = set()
        for name, values in group.items():
            if name in taken:
                raise UsageError(f"{where}: {place} sets {name}, and {taken[name]} does, too")
            taken[name] = place
            if not isinstance(values, list) or not 1 <= len(values) <= MAX_POINTS:
                raise UsageError(f"{where}: {place} {name} = {shorten(values)}: must be a list of values")
            for value in values:
                fields.check({name: value}, where=f"{where}: {place}")
            fields.check_choices(name, values, where=f"{where}: {place}")
            lengths.add(len(values))
        if len(lengths) > 1:
            counts = ", ".join(f"{name} {len(values)}" for name, values in group.items())
            raise UsageError(f"{where}: {place}: its axes must have as many values as each other: {counts}")


def choose_rows(
    groups: Sequence[Group], key: str, values: Sequence[Any], *, where: str
) -> tuple[dict[str, Any], list[Group]]:
    """What is fixed, and the groups that are left, where an axis of a group has those `values` alone; raises UsageError for another value."""
    (index,) = (index for index, group in enumerate(groups) if key in group)
    group = groups[index]
    if missing := [value for value in values if value not in group[key]]:
        others = ", ".join(name for name in group if name != key)
        raise UsageError(
            f"{where}: {key} goes together with {others} in this suite: {shorten(missing[0])} is none of {', '.join(map(str, group[key]))}"
        )
    kept = {
        name: [each for each, chosen in zip(column, group[key], strict=True) if chosen in values]
        for name, column in group.items()
    }
    before, after = list(groups[:index]), list(groups[index + 1 :])
    if len(kept[key]) == 1:
        return {name: column[0] for name, column in kept.items()}, [*before, *after]
    return {}, [*before, kept, *after]
