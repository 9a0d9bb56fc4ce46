"""Records -> DataFrames: a row per launch (`point_frame`), per rank and step (`step_frame`), per evaluation.

A launch that did not end in `ok` keeps its row, its status and its reason; its metrics are missing (NaN), never zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import axis_values
from hvbench.analysis.frame.ceilings import compare_with_machine
from hvbench.analysis.frame.columns import DTYPES, POINT_COLUMNS, Column
from hvbench.analysis.frame.own_columns import columns_of
from hvbench.analysis.frame.samples import (
    evaluations_of,
    find_defect,
    is_emulated,
    make_samples,
    sort_records,
    tokens_of_steps,
)
from hvbench.analysis.frame.targets import NOT_REACHED
from hvbench.records.record import RankSamples, Record
from hvbench.spec.script import show_value

NEVER_TRIED = ("skipped", "interrupted", "stopped")  # ends that say nothing about a launch's way to its target
STEP_SAMPLES = ("data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale")


def point_frame(records: Iterable[Record], *, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """One row per record, with the columns of `columns_of`, sorted by point, repeat and start.

    `metrics`: only these of the figures that samples are needed for, which saves most of the time; the others are missing.
    """
    records, chosen = sort_records(records), _columns_to_compute(metrics)
    rows = [_point_row(launch, record, chosen) for launch, record in enumerate(records)]
    compare_with_machine(rows)
    columns = {
        c.name: pd.Series(
            [as_text(row.get(c.name)) if c.kind == "str" else row.get(c.name) for row in rows], dtype=DTYPES[c.kind]
        )
        for c in columns_of(records)
    }
    return pd.DataFrame(columns)


def launch_row(record: Record, *, metrics: Collection[str]) -> dict[str, Any]:
    """A record's row of `point_frame` with these figures, NaN where they are missing; without a frame, which takes ten times as long."""
    row = _point_row(0, record, _columns_to_compute(metrics))
    return row | {name: math.nan for name in metrics if row.get(name) is None}


def as_text(value: Any) -> str | None:
    """A value of a column of text, in which a script's axis may have numbers too."""
    return value if value is None or isinstance(value, str) else show_value(value)


def step_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, rank and step (counted from 1), the steps of incomplete launches included.

    `tokens` are those of all ranks up to the end of the step, missing where a script does not say them; `training_seconds`
    is this rank's clock then: its steps and its waits for data.
    """
    parts = [
        _rank_steps(rank, launch=launch, record=record)
        for launch, record in enumerate(sort_records(records))
        for rank in sorted(record.ranks, key=lambda one: one.rank)
    ]
    integers = dict.fromkeys(("launch", "repeat", "rank", "step"), "int64")
    integers["tokens"] = "float64" if any(part["tokens"].dtype == float for part in parts) else "int64"
    texts = dict.fromkeys(("point_id", "framework", "status"), "str")
    floats = dict.fromkeys(("step_seconds", "training_seconds", *STEP_SAMPLES), "float64")
    dtypes = {**integers, **texts, "is_warmup": "bool", **floats}
    lengths = [len(part["step"]) for part in parts]

    def join(name: str) -> np.ndarray:
        values = [part[name] for part in parts]
        is_of_rank = values and not isinstance(values[0], np.ndarray)
        return np.repeat(np.array(values), lengths) if is_of_rank else np.concatenate([np.zeros(0), *values])

    return pd.DataFrame({name: pd.Series(join(name)).astype(dtype) for name, dtype in dtypes.items()})


def choose_slowest_rank(steps: pd.DataFrame) -> pd.DataFrame:
    """The rows of `step_frame` of one rank a launch: of those with the most steps the one whose timed steps add up to most."""
    timed = steps["step_seconds"].where(~steps["is_warmup"], 0.0)
    sums = timed.groupby([steps["launch"], steps["rank"]]).agg(["size", "sum"]).reset_index()
    first = sums.sort_values(["size", "sum"], ascending=False, kind="stable").drop_duplicates("launch")
    return steps.merge(first[["launch", "rank"]], on=["launch", "rank"])


def _rank_steps(rank: RankSamples, *, launch: int, record: Record) -> dict[str, Any]:
    """Column of `step_frame` -> the values of one rank: an array (steps,), or one value that all its steps share."""
    seconds = np.array(rank.step_seconds, dtype=float)
    steps = seconds.size
    tokens = tokens_of_steps(record, steps=steps)
    samples = {name: pad_samples(getattr(rank, name), steps) for name in STEP_SAMPLES}
    return {
        "launch": launch,
        "point_id": record.point_id,
        "framework": record.point.framework,
        "repeat": record.repeat,
        "status": record.outcome.status,
        "rank": rank.rank,
        "step": np.arange(1, steps + 1),
        "is_warmup": np.arange(steps) < record.warmup_steps,
        "tokens": np.full(steps, np.nan) if tokens is None else np.cumsum(tokens),
        "step_seconds": seconds,
        "training_seconds": np.cumsum(seconds + np.nan_to_num(samples["data_seconds"])),
        **samples,
    }


def pad_samples(values: Sequence[float | None], steps: int) -> np.ndarray:
    """The first `steps` values as an array; NaN where there is none: a launch that failed may lack its last samples in some lists."""
    padded = np.full(steps, np.nan)
    known = np.array(values[:steps], dtype=float)
    padded[: known.size] = known
    return padded


def evaluation_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record and evaluation that every rank finished; losses are weighted by the ranks' samples."""
    rows = [
        {"launch": launch, "point_id": record.point_id, "framework": record.point.framework, "repeat": record.repeat,
         "status": record.outcome.status, "tokens": count_tokens(record, steps=one.step), **vars(one)}
        for launch, record in enumerate(sort_records(records))
        for one in evaluations_of(record)
    ]  # fmt: skip
    floats = dict.fromkeys(("validation_loss", "evaluation_seconds", "training_seconds", "accuracy"), "float64")
    integers = dict.fromkeys(("launch", "repeat", "step", "tokens", "samples"), "int64")
    if any(row["tokens"] is None for row in rows):
        integers["tokens"] = "float64"
    dtypes = {**integers, **dict.fromkeys(("point_id", "framework", "status"), "str"), **floats}
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def count_tokens(record: Record, *, steps: int) -> int | None:
    """Tokens over all ranks of the first steps; None of a script that does not say them."""
    tokens = tokens_of_steps(record, steps=steps)
    return None if tokens is None else int(tokens.sum())


def _columns_to_compute(metrics: Collection[str] | None) -> list[Column]:
    """Those that samples are needed for; all, or `metrics`."""
    return [column for column in POINT_COLUMNS if column.metric and (metrics is None or column.name in metrics)]


def _point_row(launch: int, record: Record, columns: Sequence[Column]) -> dict[str, Any]:
    row = {
        "launch": launch,
        "suite": record.suite,
        "point_id": record.point_id,
        "repeat": record.repeat,
        **axis_values(record.point),
        "trained_seed": record.trained_seed,
        "is_emulated": is_emulated(record),
        "generation": record.generation,
        "status": record.outcome.status,
        "phase": record.outcome.phase,
        "message": record.outcome.reason,
        "parity": record.parity.verdict if record.parity else None,
        "started_at": record.started_at,
        "duration_seconds": record.duration_seconds,
        "target_loss": record.measure.target_loss,
    }
    defect = find_defect(record) if record.outcome.status == "ok" else None
    if defect:
        row |= {"status": "failed", "phase": "record", "message": defect}
    if row["status"] != "ok":
        was_asked = record.measure.target_loss is not None and row["status"] not in NEVER_TRIED
        return row | ({"target": NOT_REACHED} if was_asked else {})
    samples = make_samples(record)
    return row | {column.name: column.metric(samples) for column in columns}
