"""Weights & Biases: one run per launch. Offline unless the environment has a key (WANDB_API_KEY) or sets WANDB_MODE."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import wandb

from hvbench.errors import StorageError
from hvbench.tracking.runs import Curves, TrackedRun

LIVE = "live"  # folder of the runs of launches that have not ended; the records' runs replace them, online by their ids


class LiveRuns:
    """See `hvbench.tracking.runs.LiveRuns`: sessions in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / LIVE
        self.sessions: dict[str, wandb.Run] = {}  # by the ids of the launches that are running
        with explaining_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, run: TrackedRun) -> None:
        with explaining_errors(self.folder):
            self.sessions[run.id] = open_session(run, self.folder)

    def add(self, run: TrackedRun, curves: Curves) -> None:
        with explaining_errors(self.folder):
            # Else the last step waits for the next one.
            log_curves(self.sessions[run.id], curves, commit=True)

    def end(self, run: TrackedRun) -> None:
        with explaining_errors(self.folder):
            self.sessions.pop(run.id).finish()


def write_runs(runs: Iterable[TrackedRun], folder: Path) -> str:
    """Log every launch that this folder does not have yet; the command or address that shows them. Raises StorageError."""
    with explaining_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / LIVE, ignore_errors=True)
        known = {path.name.rpartition("-")[2] for path in folder.glob("wandb/*run-*")}
        for run in runs:
            if run.id not in known:
                write_run(run, folder)
    offline = f"wandb sync {folder / 'wandb' / 'offline-run-*'}"
    return offline if choose_mode() == "offline" else "https://wandb.ai"


def write_run(run: TrackedRun, folder: Path) -> None:
    """Log one launch: curves as history over the steps, settings as the configuration, figures as the summary."""
    session = open_session(run, folder)
    log_curves(session, run.curves)
    session.summary.update({"status": run.status, **run.figures})
    session.finish()


def open_session(run: TrackedRun, folder: Path) -> wandb.Run:
    """A session of a launch, in place of an earlier one with its id, by a service of this process's own."""
    # That of a process above, or of a tracker that hangs, may hold the same id.
    os.environ.pop("WANDB_SERVICE", None)
    # No facts about this machine, which may not be the one that measured.
    quiet = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        disable_git=True,
    )
    return wandb.init(
        mode=choose_mode(), dir=folder, project=os.environ.get("WANDB_PROJECT", "hvbench"), id=run.id, name=run.name,
        group=run.suite, tags=[run.status], config=run.settings, reinit="create_new", settings=quiet,
    )  # fmt: skip


def log_curves(session: wandb.Run, curves: Curves, *, commit: bool | None = None) -> None:
    """Values of curves as history, a row a step."""
    by_step: dict[int, dict[str, float]] = {}
    for name, values in curves.items():
        for one in values:
            by_step.setdefault(one.step, {"_timestamp": one.seconds})[name] = one.value
    for step in sorted(by_step):
        session.log(by_step[step], step=step, commit=commit)


def choose_mode() -> str:
    """`online`, `offline`, or what else WANDB_MODE says."""
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


@contextlib.contextmanager
def explaining_errors(folder: Path) -> Iterator[None]:
    """Turn what W&B raises in the block into a StorageError of one line: not all of it is its own `Error`."""
    try:
        yield
    except Exception as error:
        raise StorageError(f"{folder}: Weights & Biases: {(str(error) or repr(error)).splitlines()[0]}") from None
