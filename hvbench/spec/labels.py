"""Short names of points for lists that people read, and the fields that distinguish points of the same short name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hvbench.spec.point import AnyPoint
from hvbench.spec.script import ScriptPoint

MICRO_BATCH = re.compile(r"-b\d+x")  # in a short name


def short_name(point: AnyPoint) -> str:
    """The id of `point` without its digest: `pytorch-small-b8x1-fp32-none`."""
    return point.point_id.rpartition("-")[0]


def configuration_name(point: AnyPoint) -> str:
    """The short name of `point` without its framework: the same for all frameworks that train one configuration."""
    return short_name(point).partition("-")[2]


def distinguish(points: Iterable[AnyPoint]) -> dict[AnyPoint, str]:
    """What has to be added to the short name of each of `points` to distinguish it from the others.

    Returns:
        Point -> ` FIELD=VALUE …`, the fewest fields in their order that split points of the same short name, or of names that
        differ in the micro-batch alone: a search tries another one of each configuration. Mostly empty.
    """
    by_name: dict[str, list[AnyPoint]] = {}
    for point in dict.fromkeys(points):
        by_name.setdefault(_any_batch_name(point), []).append(point)
    additions = {}
    for same_name in by_name.values():
        names, groups = [], [same_name]
        for name in _unnamed_fields(same_name[0]):
            smaller = [part for group in groups for part in _split(group, name)]
            if len(smaller) > len(groups):
                names.append(name)
                groups = smaller
        for point in same_name:
            values = describe_values({name: values_of(point).get(name) for name in names})
            additions[point] = f" {values}" if values else ""
    return additions


def _any_batch_name(point: AnyPoint) -> str:
    """The short name without the micro-batch, of a script the whole of it."""
    name = short_name(point)
    return name if isinstance(point, ScriptPoint) else MICRO_BATCH.sub("-", name)


def _unnamed_fields(point: AnyPoint) -> list[str]:
    return [name for name in values_of(point) if name != "micro_batch_size" or isinstance(point, ScriptPoint)]


def values_of(point: AnyPoint) -> dict[str, Any]:
    """Field -> value, of a script the names in its braces, its ranks and its seed."""
    if isinstance(point, ScriptPoint):
        return {**point.values, "world_size": point.world_size, "seed": point.seed}
    return {name: getattr(point, name) for name in type(point).model_fields}


def describe_values(values: Mapping[str, Any]) -> str:
    """Fields and values as text: `fusion_threshold_bytes=4194304 cycle_time_seconds=default`."""
    return " ".join(f"{name}={_show(value)}" for name, value in values.items())


def _split(points: list[AnyPoint], name: str) -> list[list[AnyPoint]]:
    """`points` grouped by the value of one field."""
    groups: dict[object, list[AnyPoint]] = {}
    for point in points:
        groups.setdefault(values_of(point).get(name), []).append(point)
    return list(groups.values())


def _show(value: object) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
