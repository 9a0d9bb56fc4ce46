"""Which trackers there are, what they need, and which files of a run they share with its sweep."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from hvbench.errors import UsageError

# Tracker -> the libraries that its module needs. The extra of the package and the module have the tracker's name.
LIBRARIES = {"tensorboard": ("tensorboardX",), "wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy")}
LIVE = ("tensorboard", "wandb")  # whose modules have LiveRuns: they are written while a sweep runs, too

STEPS_FOLDER = Path("tracking") / "steps"  # below the run's folder, while a sweep is followed: a file a launch

VARIABLE = (
    "HVBENCH_TRACKING"  # names that folder: by it all processes are found that follow its sweep, or were started by one
)


def failure_path(run_dir: Path, name: str) -> Path:
    """The file in which the process of a tracker that followed a sweep has left why it ended."""
    return run_dir / STEPS_FOLDER / f"{name}.failure"


def require_trackers(names: Iterable[str]) -> None:
    """Raise UsageError for a tracker whose library is not installed."""
    for name in names:
        if any(importlib.util.find_spec(library) is None for library in LIBRARIES[name]):
            raise UsageError(f"--track {name} needs {' and '.join(LIBRARIES[name])}: pip install 'hvbench[{name}]'")
