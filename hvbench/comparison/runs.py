"""Runs by name: a folder, `SUITE@latest`, `SUITE@baseline` or `SUITE@ab` -> the launches in it."""

from __future__ import annotations

from pathlib import Path

from hvbench.comparison.result import LaunchSet
from hvbench.errors import MissingData, UsageError
from hvbench.io.folders import age_key
from hvbench.records.store import RunFolder, latest_run_path, newest_folder
from hvbench.spec.messages import shorten

BASELINES = "baselines"


def find_run(text: str, *, root: Path) -> Path:
    """The folder that `text` means; raises UsageError when it can mean none, MissingData when it is not there."""
    name, at, which = text.rpartition("@")
    if not at or Path(text).exists():
        return Path(text)
    if which == "latest":
        path = latest_run_path(root, require_name(name))
    elif which == "baseline":
        kept = sorted(
            (root / BASELINES).glob(f"*/{require_name(name)}/run.json"), key=lambda path: path.stat().st_mtime
        )
        path = kept[-1].parent if kept else None
    elif which == "ab":
        path = newest_folder((root / "ab" / require_name(name)).glob("*/ab.json"))
    else:
        raise UsageError(f"{shorten(text)}: must be a folder, SUITE@latest, SUITE@baseline or SUITE@ab")
    if path is None:
        how = {"baseline": "baseline set RUN", "latest": f"sweep {name}", "ab": f"ab {name}"}[which]
        raise MissingData(f"{shorten(text)}: there is none below {root}; make one with hvbench {how}")
    return path


def require_name(name: str) -> str:
    """`name` if it can be a suite's, and nothing that leads elsewhere; raises UsageError."""
    if (
        not name
        or name != Path(name).name
        or not all(each.isalnum() or each in "._-" for each in name)
        or name.startswith(".")
    ):
        raise UsageError(f"{shorten(name)}: not the name of a suite")
    return name


def load_launches(path: Path, *, name: str) -> tuple[LaunchSet, list[str]]:
    """All launches of the run at `path` as one side of a comparison, and a line for each unreadable record.

    Raises UsageError when it is no run folder, MissingData when it holds no record.
    """
    folder = RunFolder(path)
    folder.read_run()
    records, problems = folder.read_records()
    if not records:
        raise MissingData(f"{path}: holds no readable record{f': {problems[0]}' if problems else ''}")
    return LaunchSet(name=name, records=records, job=str(path)), problems


def list_runs(root: Path, suite: str) -> tuple[list[tuple[str, str, LaunchSet]], list[str]]:
    """Every run of `suite` below `root` with records, as (name, created at, launches), oldest first.

    A run or a record that cannot be read costs no other: the second value has a line for each. Raises UsageError for a
    name that no suite can have.
    """
    found, problems = [], []
    for path in (root / require_name(suite)).glob("*/run.json"):
        folder = RunFolder(path.parent)
        try:
            created_at = str(folder.read_run().get("created_at", ""))
        except UsageError as error:
            problems.append(str(error))
            continue
        records, unreadable = folder.read_records()
        problems += unreadable
        if records:
            launches = LaunchSet(name=path.parent.name, records=records, job=str(path.parent))
            found.append((path.parent.name, created_at, launches))
    return sorted(found, key=lambda run: (run[1], age_key(Path(run[0])))), problems
