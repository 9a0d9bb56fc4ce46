"""The summary's rows of a run's points: those that were measured, their names, and the pairs of them that differ in one axis."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from hvbench.analysis.frame.axes import axes_of
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.panels import STYLES, describe_value, label_text
from hvbench.analysis.stats.estimates import summary_rows
from hvbench.registry import SCRIPT
from hvbench.spec.exchange import describe_bandwidth
from hvbench.spec.script import name_program


def measured_rows(run: Run) -> list[Row]:
    """The summary's rows of the points whose speed was measured, in table order."""
    return [row for row in summary_rows(run) if not pd.isna(row[STEP])]


def asked_rows(run: Run) -> list[Row]:
    """The summary's rows of all points that were tried, also of those of which no launch ended in `ok`."""
    return [row for row in summary_rows(run) if row["status"] != "skipped"]


def by_framework(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Framework -> its rows, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["framework"], []).append(row)
    return found


LINK = "link_bits_per_second"


def chosen_axes(run: Run) -> list[str]:
    """The axes that vary and are somebody's choice: a link is what there is."""
    return [axis for axis in run.other_axes if axis != LINK]


def by_link(run: Run, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """` over 200 Mbit/s` -> its rows, in their order; no words where links do not vary."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_name_link(row) if LINK in run.other_axes else "", []).append(row)
    return found


def _name_link(row: Row) -> str:
    return " over the link as it is" if pd.isna(row[LINK]) else f" over {describe_bandwidth(float(row[LINK]))}"


def pair_values(
    rows: Sequence[Row], axis: str, one: object, other: object, *, bound: Collection[str] = ()
) -> list[tuple[Row, Row]]:
    """The rows that differ in nothing but `axis`, and in what is `bound` to it, as pairs (with `one`, with `other`), in table order."""
    pairs = _pair(rows, axis, one, other, bound=bound)
    return [pair for pair in pairs if not any(pd.isna(row[STEP]) for row in pair)]


def count_unmeasured(rows: Sequence[Row], axis: str, one: object, other: object, *, bound: Collection[str] = ()) -> int:
    """How many such pairs of tried points cannot be compared, for one has no speed."""
    return sum(any(pd.isna(row[STEP]) for row in pair) for pair in _pair(rows, axis, one, other, bound=bound))


def _pair(
    rows: Sequence[Row], axis: str, one: object, other: object, *, bound: Collection[str]
) -> list[tuple[Row, Row]]:
    names = [name for name in axes_of(rows[0]) if name != axis and name not in bound] if rows else []
    found: dict[tuple, dict[object, Row]] = {}
    for row in rows:
        if row[axis] in (one, other):
            key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
            found.setdefault(key, {})[row[axis]] = row
    return [(pair[one], pair[other]) for pair in found.values() if len(pair) == 2]


def describe_point(row: Row, axes: Sequence[str]) -> str:
    """The axes that vary, in words, such as `micro-batch 8, bf16 (emulated)`; nothing where none does."""
    emulated = frozenset({row["precision"]} if row["is_emulated"] else ())
    return ", ".join(describe_value(axis, row[axis], emulated=emulated) for axis in axes)


def name_point(row: Row, axes: Sequence[str]) -> str:
    """The same with its framework: `PyTorch with micro-batch 8`."""
    where = describe_point(row, axes)
    return f"{label_of(row)} with {where}" if where else label_of(row)


def label_of(row: Row) -> str:
    """The name of a row's framework, or of the script that was run."""
    if row["framework"] == SCRIPT:
        return name_script(str(row["command"]))
    return STYLES[row["framework"]].label


def name_script(command: str) -> str:
    """The file of a script: `train.py`; of a command that names no Python file only that it is one."""
    name = name_program(command)
    return label_text(name) if name.endswith(".py") else STYLES[SCRIPT].label


def title_of(run: Run, framework: str) -> str:
    """What a framework is called in a run: a script by its file, where there is only one."""
    names = {label_of(row) for row in summary_rows(run) if row["framework"] == framework == SCRIPT}
    return names.pop() if len(names) == 1 else STYLES[framework].label
