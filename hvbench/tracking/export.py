"""Records -> runs of trackers, after everything was measured, so that nothing of it runs beside a timed step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hvbench.analysis.frame.columns import POINT_COLUMNS
from hvbench.analysis.frame.elapsed import elapsed_after_steps, slowest_rank
from hvbench.analysis.frame.frames import pad_samples, point_frame
from hvbench.analysis.frame.samples import evaluations_of, sort_records
from hvbench.errors import StorageError
from hvbench.records.fingerprint import name_revision
from hvbench.records.record import Record
from hvbench.tracking.runs import TrackedRun, Value, identify, list_settings, read_time
from hvbench.tracking.trackers import require_trackers

FIGURES = tuple(column.name for column in POINT_COLUMNS if column.metric and column.kind in ("int", "float"))
STEP_CURVES = ("gradient_norm", "learning_rate", "loss_scale")  # the same on every rank


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
        StorageError: A tracker could not be written; the others are.
    """
    names = list(names)
    if not names:
        return []  # the figures of the launches take seconds to compute
    require_trackers(names)
    runs = [make_run(record, row) for record, row in pair_with_figures(records)]
    hints, problems = [], []
    for name in names:
        module = importlib.import_module(f"hvbench.tracking.{name}")
        try:
            hints.append(module.write_runs(runs, run_dir / "tracking" / name))
        except StorageError as error:
            problems.append(str(error))
    if problems:
        raise StorageError("; ".join(problems))
    return hints


def pair_with_figures(records: Sequence[Record]) -> Iterable[tuple[Record, pd.Series]]:
    """Each record with its row of `point_frame`."""
    points = point_frame(records)
    return ((record, row) for record, (_, row) in zip(sort_records(records), points.iterrows(), strict=True))


def make_run(record: Record, row: pd.Series) -> TrackedRun:
    """The tracker run of a record and its row of `point_frame`; figures that are missing or not finite are left out."""
    start = read_time(record.started_at)
    revision = name_revision(record) if record.is_script else None
    figures = {name: float(row[name]) for name in FIGURES if not pd.isna(row[name]) and math.isfinite(row[name])}
    return TrackedRun(
        id=identify(record.suite, record.key, record.started_at),
        name=record.key,
        suite=record.suite,
        status=record.outcome.status,
        settings=list_settings(record.point, repeat=record.repeat, revision=revision),
        curves=make_curves(record, start=start),
        figures=figures,
        start_seconds=start,
        end_seconds=start + record.duration_seconds,
    )


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
