"""Export of records to experiment trackers: one tracker run per launch, with its settings, metrics per step and summary.

Trackers are written from the records after everything was measured, so nothing of them runs beside a timed step, and
`hvbench report RUN --track …` can export an old run. Exporting a run twice adds nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import axis_values, is_own, plain_name
from hvbench.analysis.frame.columns import POINT_COLUMNS
from hvbench.analysis.frame.elapsed import elapsed_after_steps, slowest_rank
from hvbench.analysis.frame.frames import pad_samples, point_frame
from hvbench.analysis.frame.samples import evaluations_of, sort_records
from hvbench.errors import UsageError
from hvbench.records.fingerprint import name_revision
from hvbench.records.record import Record

# Tracker -> the libraries that its module needs. The extra of the package and the module have the tracker's name.
LIBRARIES = {"tensorboard": ("tensorboardX",), "wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy")}
FIGURES = tuple(column.name for column in POINT_COLUMNS if column.metric and column.kind in ("int", "float"))
STEP_CURVES = ("gradient_norm", "learning_rate", "loss_scale")  # the same on every rank


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a curve."""

    step: int  # steps done
    seconds: float  # since 1970: start of the launch plus its training time
    value: float


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One launch in the form that all trackers take."""

    id: str  # the same for the same record, another one for another attempt
    name: str
    suite: str
    status: str
    settings: dict[str, str | int | float | bool | None]  # field of the point -> value
    curves: dict[str, list[Value]]  # name -> values over the steps
    figures: dict[str, float]  # metric -> value over the whole launch
    start_seconds: float  # since 1970
    end_seconds: float


def require_trackers(names: Iterable[str]) -> None:
    """Raise UsageError for a tracker whose library is not installed."""
    for name in names:
        if any(importlib.util.find_spec(library) is None for library in LIBRARIES[name]):
            raise UsageError(f"--track {name} needs {' and '.join(LIBRARIES[name])}: pip install 'hvbench[{name}]'")


def track(run_dir: Path, records: Sequence[Record], names: Iterable[str]) -> list[str]:
    """Export every launch to each tracker.

    Args:
        run_dir: Folder of the run; local trackers write below its `tracking/`.
        records: Of the run.
        names: Keys of LIBRARIES.

    Returns:
        For each tracker, the command or address that shows the result.

    Raises:
        UsageError: A tracker's library is not installed.
        StorageError: A tracker could not be written.
    """
    names = list(names)
    if not names:
        return []  # the figures of the launches take seconds to compute
    require_trackers(names)
    runs = [make_run(record, row) for record, row in pair_with_figures(records)]
    modules = [importlib.import_module(f"hvbench.tracking.{name}") for name in names]
    return [module.write_runs(runs, run_dir / "tracking" / name) for module, name in zip(modules, names, strict=True)]


def pair_with_figures(records: Sequence[Record]) -> Iterable[tuple[Record, pd.Series]]:
    """Each record with its row of `point_frame`."""
    points = point_frame(records)
    return ((record, row) for record, (_, row) in zip(sort_records(records), points.iterrows(), strict=True))


def make_run(record: Record, row: pd.Series) -> TrackedRun:
    """The tracker run of a record and its row of `point_frame`; figures that are missing or not finite are left out."""
    start = datetime.fromisoformat(record.started_at).timestamp()
    settings = {"repeat": record.repeat, **list_settings(record)}
    figures = {name: float(row[name]) for name in FIGURES if not pd.isna(row[name]) and math.isfinite(row[name])}
    key = f"{record.suite} {record.key} {record.started_at}"
    return TrackedRun(
        id=hashlib.sha256(key.encode()).hexdigest()[:16],
        name=record.key,
        suite=record.suite,
        status=record.outcome.status,
        settings=settings,
        curves=make_curves(record, start=start),
        figures=figures,
        start_seconds=start,
        end_seconds=start + record.duration_seconds,
    )


def list_settings(record: Record) -> dict[str, str | int | float | bool | None]:
    """Field of the point -> value; of a script its axes by their names, its command, and its revision."""
    if not record.is_script:
        return record.point.model_dump()
    values = axis_values(record.point) | {"revision": name_revision(record)}
    plain = {name: plain_name(name) for name in values}
    # An axis that is called as a field of every script keeps its name, with what it is before it.
    return {
        f"axis.{plain[name]}" if is_own(name) and plain[name] in {"repeat", *values} else plain[name]: value
        for name, value in values.items()
    }


def make_curves(record: Record, *, start: float) -> dict[str, list[Value]]:
    """Curve -> finite values: loss (mean over ranks), seconds of a step (slowest rank), STEP_CURVES, validation loss.

    `start` plus the time that training had taken is each value's time, waits for data included, as for evaluations.
    """
    ranks = sorted(record.ranks, key=lambda rank: rank.rank)
    if not ranks:
        return {}
    steps = min(len(rank.step_seconds) for rank in ranks)
    seconds = np.array([rank.step_seconds[:steps] for rank in ranks], dtype=float)
    waits = np.array([pad_samples(rank.data_seconds, steps) for rank in ranks])
    clock = start + elapsed_after_steps(seconds + waits)
    timed = seconds[:, record.warmup_steps :] if steps > record.warmup_steps else seconds
    columns: dict[str, list[float | None]] = {"step_seconds": seconds[slowest_rank(timed)].tolist()}
    losses = [rank.loss[:steps] for rank in ranks]
    columns["loss"] = [mean_loss(of_step, is_script=record.is_script) for of_step in zip(*losses, strict=False)]
    columns |= {name: getattr(ranks[0], name)[:steps] for name in STEP_CURVES}
    curves = {
        name: [
            Value(step=index + 1, seconds=float(clock[index]), value=float(value))
            for index, value in enumerate(values)
            if value is not None and math.isfinite(value)
        ]
        for name, values in columns.items()
    }
    curves["validation_loss"] = [
        Value(step=one.step, seconds=start + one.training_seconds, value=one.validation_loss)
        for one in evaluations_of(record)
        if math.isfinite(one.validation_loss)
    ]
    return {name: values for name, values in curves.items() if values}


def mean_loss(losses: Sequence[float | None], *, is_script: bool) -> float | None:
    """Mean over the ranks of one step's losses; None where one is no number, of a script where no rank logged any."""
    known = [loss for loss in losses if loss is not None]
    if not known or (len(known) < len(losses) and not is_script):
        return None
    return sum(known) / len(known)
