"""The fields of a point as axes of a table or plot: their order, which of them vary, and the order of their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import pandas as pd

from hvbench.spec.point import OPTIMIZER_PRESETS, Point

# Axes in the order in which tables show them and sort by them; the rest of the point's fields follow.
LEADING_AXES = (
    "framework", "model", "micro_batch_size", "gradient_accumulation_steps", "precision", "compression", "world_size",
)  # fmt: skip
AXES = LEADING_AXES + tuple(name for name in Point.model_fields if name not in LEADING_AXES)
PRESET_SIZES = ("num_layers", "num_heads", "hidden_size", "vocab_size", "sequence_length")
# Fields that a choice of another one sets, unless they were set by hand.
FOLLOWS = dict.fromkeys(PRESET_SIZES, "model") | {
    name: "optimizer" for preset in OPTIMIZER_PRESETS.values() for name in preset
}


def varying_axes(points: pd.DataFrame) -> list[str]:
    """Fields of the point with more than one value, in table order, without those that only follow from `model` or `optimizer`."""

    def varies(name: str) -> bool:
        if name in FOLLOWS:
            return bool((points.groupby(FOLLOWS[name])[name].nunique(dropna=False) > 1).any())
        return points[name].nunique(dropna=False) > 1

    return [name for name in AXES if len(points) and varies(name)]


def order_values(name: str, values: Iterable[Any]) -> list[Any]:
    """Distinct values of a point's field: in the order that `Point` declares choices, else ascending."""
    declared = get_args(Point.model_fields[name].annotation)
    distinct = {None if pd.isna(value) else value for value in values}
    return sorted(
        distinct, key=lambda v: (v is None, declared.index(v) if v in declared else 0, v if v is not None else 0)
    )
