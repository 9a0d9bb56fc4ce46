"""The columns of `point_frame` for these records: those of every run, and the axes of the scripts among the launches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hvbench.analysis.frame.axes import OF_SCRIPTS, axis_values, is_own, plain_name
from hvbench.analysis.frame.columns import POINT_COLUMNS, Column
from hvbench.records.record import Record

OF_SCRIPT = {
    "command": "of a script, with the names of its axes in braces",
    "environment": "variables that the suite sets for it",
    "shell": "whether a shell reads that",
}


def columns_of(records: Iterable[Record]) -> tuple[Column, ...]:
    """POINT_COLUMNS, and behind the ranks the axes of scripts among the launches, each with the kind that its values have.

    In which unit a script states its loss, nobody knows.
    """
    values: dict[str, list[Any]] = {}
    records = list(records)
    for record in records:
        for name, value in axis_values(record.point).items() if record.is_script else ():
            if is_own(name) or name in OF_SCRIPTS:
                values.setdefault(name, []).append(value)
    if not values:
        return POINT_COLUMNS
    own = [
        Column(name, kind_of_values(values[name]), "", OF_SCRIPT.get(name, f"the script's own: {plain_name(name)}"))
        for name in sorted(values, key=lambda name: name in OF_SCRIPTS)
    ]
    known = POINT_COLUMNS
    if all(record.is_script for record in records):
        known = tuple(replace(column, unit="") if column.unit == "nats/token" else column for column in known)
    place = 1 + [column.name for column in known].index("world_size")
    return (*known[:place], *own, *known[place:])


def kind_of_values(values: Iterable[Any]) -> str:
    """The key of DTYPES that holds all these values; text where they are of several kinds."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return "int" if kinds == {int} else "float"
    return "bool" if kinds == {bool} else "str"
