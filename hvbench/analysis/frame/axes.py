"""The fields of a point as axes of a table or plot: their order, which of them vary, and the order of their values.

The axes of a script are its own: the names in braces of its command, as columns with the braces, so that they are none of hvbench's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from hvbench.registry import SCRIPT
from hvbench.spec.knob import choices_of, knobs_of, presets_of
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.script import ScriptPoint, show_variables

# Axes in the order in which tables show them and sort by them; the rest of the point's fields follow.
KNOBS = knobs_of(Point)
LEADING_AXES = tuple(
    sorted((name for name, knob in KNOBS.items() if knob.column is not None), key=lambda name: KNOBS[name].column)
)
AXES = LEADING_AXES + tuple(name for name in KNOBS if name not in LEADING_AXES)
OWN_BATCH = ("micro_batch_size", "gradient_accumulation_steps")  # one rank's samples of a step
GLOBAL_BATCH = (*OWN_BATCH, "world_size")  # a step's samples over all ranks: their product
# Fields that a choice of another one sets, unless they were set by hand.
FOLLOWS = {
    name: field for field, presets in presets_of(Point).items() for preset in presets.values() for name in preset
}
PRESET_SIZES = tuple(name for name, field in FOLLOWS.items() if field == "model")
OF_SCRIPTS = ("command", "environment", "shell")  # what scripts have beside axes of their own, ranks and a seed
STATED_BY_SCRIPTS = ("framework", "world_size", *OF_SCRIPTS, "seed")


def own_axis(name: str) -> str:
    """The column of a script's axis: `{batch}`."""
    return f"{{{name}}}"


def is_own(axis: str) -> bool:
    """Whether an axis is a script's own."""
    return axis.startswith("{")


def plain_name(axis: str) -> str:
    """An axis as its suite calls it: `batch`."""
    return axis[1:-1] if is_own(axis) else axis


def axis_values(point: AnyPoint) -> dict[str, Any]:
    """Axis -> value of one point; variables of a script and a shell only where the suite asks for them."""
    if not isinstance(point, ScriptPoint):
        return point.model_dump()
    own = {own_axis(name): value for name, value in point.values.items()}
    environment = {"environment": " ".join(show_variables(point.environment))} if point.environment else {}
    shell = {"shell": True} if point.shell else {}
    return {
        "framework": point.framework,
        "world_size": point.world_size,
        **own,
        "command": point.command,
        **environment,
        **shell,
        "seed": point.seed,
    }


def axes_of(columns: Iterable[str]) -> list[str]:
    """The axes among the columns of a frame, or the keys of its row, in table order: a script's own follow the ranks."""
    columns = list(columns)
    names = set(columns)
    scripts = [
        *dict.fromkeys(name for name in columns if is_own(name)),
        *(name for name in OF_SCRIPTS if name in names),
    ]
    if not scripts:
        return [name for name in AXES if name in names]
    first = LEADING_AXES[: LEADING_AXES.index("world_size") + 1]
    return [name for name in (*first, *scripts, *AXES[len(first) :]) if name in names]


def stated_axes(points: pd.DataFrame) -> list[str]:
    """The axes that the points of a frame can have: of scripts alone, none of the twins' fields."""
    axes = axes_of(points.columns)
    return [name for name in axes if is_own(name) or name in STATED_BY_SCRIPTS] if are_scripts(points) else axes


def are_scripts(points: pd.DataFrame) -> bool:
    """Whether all launches of a frame are people's own scripts."""
    return len(points) > 0 and bool((points["framework"] == SCRIPT).all())


def tabulate_points(points: Iterable[AnyPoint]) -> pd.DataFrame:
    """A row a point, with the axes as columns."""
    rows = [axis_values(point) for point in points]
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*AXES, *names])))


def varying_axes(points: pd.DataFrame) -> list[str]:
    """Fields of the point with more than one value, in table order, without those that only follow from `model` or `optimizer`."""

    def varies(name: str) -> bool:
        if name in FOLLOWS:
            return bool((points.groupby(FOLLOWS[name])[name].nunique(dropna=False) > 1).any())
        return points[name].nunique(dropna=False) > 1

    return [name for name in axes_of(points.columns) if len(points) and varies(name)]


def order_values(name: str, values: Iterable[Any]) -> list[Any]:
    """Distinct values of a point's field, or of a script's axis: in the order that `Point` declares choices, else ascending."""
    declared = choices_of(Point.model_fields[name]) if name in Point.model_fields else ()
    distinct = {None if pd.isna(value) else value for value in values}
    return sorted(
        distinct,
        key=lambda v: (
            v is None,
            declared.index(v) if v in declared else 0,
            isinstance(v, str),  # an axis of a script may have had numbers before it had names
            v if v is not None else 0,
        ),
    )
