"""TensorBoard: one event file per launch, below the run's folder; written by tensorboardX, which imports no framework."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import tensorboardX

from hvbench.errors import StorageError
from hvbench.tracking import TrackedRun


def write_runs(runs: Iterable[TrackedRun], folder: Path) -> str:
    """Write every launch, replacing its earlier event file; the command that shows them. Raises StorageError."""
    try:
        for run in runs:
            shutil.rmtree(folder / run.name, ignore_errors=True)
            write_run(run, folder / run.name)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return f"tensorboard --logdir {folder}"


def write_run(run: TrackedRun, folder: Path) -> None:
    """Write one launch: curves as scalars, figures as scalars `figures/…` at the last step, settings as a text."""
    with tensorboardX.SummaryWriter(str(folder)) as writer:
        for name, values in run.curves.items():
            for one in values:
                writer.add_scalar(name, one.value, one.step, walltime=one.seconds)
        last = max((values[-1].step for values in run.curves.values()), default=0)
        for name, value in run.figures.items():
            writer.add_scalar(f"figures/{name}", value, last, walltime=run.end_seconds)
        facts = {"status": run.status, "suite": run.suite, **run.settings}
        lines = ["| field | value |", "| :--- | :--- |", *(f"| {name} | {value} |" for name, value in facts.items())]
        writer.add_text("point", "\n".join(lines), 0, walltime=run.start_seconds)
