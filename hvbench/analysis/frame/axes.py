"""The fields of a point as axes of a table or plot: their order, which of them vary, and the order of their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from hvbench.spec.knob import choices_of, knobs_of, presets_of
from hvbench.spec.point import Point

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


def varying_axes(points: pd.DataFrame) -> list[str]:
    """Fields of the point with more than one value, in table order, without those that only follow from `model` or `optimizer`."""

    def varies(name: str) -> bool:
        if name in FOLLOWS:
            return bool((points.groupby(FOLLOWS[name])[name].nunique(dropna=False) > 1).any())
        return points[name].nunique(dropna=False) > 1

    return [name for name in AXES if len(points) and varies(name)]


def order_values(name: str, values: Iterable[Any]) -> list[Any]:
    """Distinct values of a point's field: in the order that `Point` declares choices, else ascending."""
    declared = choices_of(Point.model_fields[name])
    distinct = {None if pd.isna(value) else value for value in values}
    return sorted(
        distinct, key=lambda v: (v is None, declared.index(v) if v in declared else 0, v if v is not None else 0)
    )
