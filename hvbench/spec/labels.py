"""What a person is told of a point in a list of points: its id without the digest, and what else tells it from the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hvbench.spec.point import Point


def short_name(point: Point) -> str:
    """The id of `point` without its digest."""
    return point.point_id.rpartition("-")[0]


def configuration_name(point: Point) -> str:
    """The same in any framework: without that, too."""
    return short_name(point).partition("-")[2]


def tell_apart(points: Iterable[Point]) -> dict[Point, str]:
    """Point -> ` FIELD=VALUE …` of the fields that tell it from others of the same short name, as few as do; mostly ``."""
    by_name: dict[str, list[Point]] = {}
    for point in dict.fromkeys(points):
        by_name.setdefault(short_name(point), []).append(point)
    told = {}
    for same in by_name.values():
        names, alike = [], [same]
        for name in Point.model_fields:
            finer = [part for group in alike for part in _split(group, name)]
            if len(finer) > len(alike):
                names.append(name)
                alike = finer
        for point in same:
            values = describe_values({name: getattr(point, name) for name in names})
            told[point] = f" {values}" if values else ""
    return told


def describe_values(values: Mapping[str, Any]) -> str:
    """`fusion_threshold_bytes=4194304 cycle_time_seconds=default`."""
    return " ".join(f"{name}={_show(value)}" for name, value in values.items())


def _split(points: list[Point], name: str) -> list[list[Point]]:
    parts: dict[object, list[Point]] = {}
    for point in points:
        parts.setdefault(getattr(point, name), []).append(point)
    return list(parts.values())


def _show(value: object) -> str:
    return (
        "default"
        if value is None
        else f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
