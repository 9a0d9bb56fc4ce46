"""Weights & Biases: one run per launch. Offline unless the environment has a key (WANDB_API_KEY) or sets WANDB_MODE."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import wandb

from hvbench.errors import StorageError
from hvbench.tracking import TrackedRun


def write_runs(runs: Iterable[TrackedRun], folder: Path) -> str:
    """Log every launch that this folder does not have yet; the command or address that shows them. Raises StorageError."""
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = {path.name.rpartition("-")[2] for path in folder.glob("wandb/*run-*")}
        for run in runs:
            if run.id not in known:
                write_run(run, folder, mode=mode)
    except (OSError, wandb.Error) as error:
        raise StorageError(f"{folder}: Weights & Biases: {str(error).splitlines()[0]}") from None
    return f"wandb sync {folder / 'wandb' / 'offline-run-*'}" if mode == "offline" else "https://wandb.ai"


def write_run(run: TrackedRun, folder: Path, *, mode: str) -> None:
    """Log one launch: curves as history over the steps, settings as the configuration, figures as the summary."""
    # No facts about this machine, which may not be the one that measured.
    quiet = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        disable_git=True,
    )
    session = wandb.init(
        mode=mode, dir=folder, project=os.environ.get("WANDB_PROJECT", "hvbench"), id=run.id, name=run.name,
        group=run.suite, tags=[run.status], config=run.settings, reinit="create_new", settings=quiet,
    )  # fmt: skip
    by_step: dict[int, dict[str, float]] = {}
    for name, values in run.curves.items():
        for one in values:
            by_step.setdefault(one.step, {"_timestamp": one.seconds})[name] = one.value
    for step in sorted(by_step):
        session.log(by_step[step], step=step)
    session.summary.update({"status": run.status, **run.figures})
    session.finish()
