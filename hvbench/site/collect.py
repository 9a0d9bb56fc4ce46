"""A folder of results -> where its runs and A/B comparisons lie, and a signature of each that changes when it does.

Folders may come from anybody: no link is followed, and the walk is bounded.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hvbench.comparison.runs import BASELINES
from hvbench.errors import UsageError
from hvbench.io.untrusted import read_regular_file
from hvbench.records.store import MAX_RUN_BYTES

MARKER = "hvbench-site.json"  # what says that a folder is a site of ours
MAX_DEPTH = 8  # of folders below the one that is named
MAX_FOLDERS = 200_000
RUN, AB = "run", "ab"
MARKERS = {AB: "ab.json", RUN: "run.json"}  # the pairs of an A/B comparison are runs, too, and belong to it


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run or an A/B comparison lies."""

    kind: str  # RUN or AB
    path: Path
    name: str  # relative to the folder of all results
    signature: str  # of the files' names, sizes and times
    content: str  # the same for a copy of it
    records: int

    @property
    def id(self) -> str:
        """What its pages and files are called: readable, and unique whatever the folders are called."""
        return name_file(self.name)


def name_file(*words: str) -> str:
    """A name that every file system takes, the same for the same words and another for any others."""
    readable = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[:60].strip("-")
    digest = hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{readable}-{digest}" if readable else digest


def collect(root: Path) -> tuple[list[Place], list[tuple[str, str]]]:
    """(runs and A/B comparisons below `root`, by name; (place, why) of what cannot be looked into). Of copies the first is taken.

    Raises UsageError where `root` is no folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: not a folder of results")
    problems: list[tuple[str, str]] = []
    places = []
    for kind, path in walk(root, problems):
        try:
            places.append(look_at(kind, path, root=root))
        except (OSError, UsageError) as error:
            problems.append((show_path(path, root), getattr(error, "strerror", None) or str(error)))
    # What is kept as a baseline is a copy of a run: the run itself comes first.
    places.sort(key=lambda place: (BASELINES in Path(place.name).parts, place.name))
    first = {place.content: place for place in reversed(places)}
    return sorted(first.values(), key=lambda place: place.name), problems


def walk(root: Path, problems: list[tuple[str, str]]) -> Iterator[tuple[str, Path]]:
    """(kind, folder) of every run and A/B comparison; nothing below one of them, nor hidden folders, sites and links."""
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > MAX_FOLDERS:
            problems.append((show_path(folder, root), f"not looked into: more than {MAX_FOLDERS:,} folders"))
            return
        try:
            with os.scandir(folder) as entries:
                inside = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError as error:
            problems.append((show_path(folder, root), f"cannot be read: {error.strerror}"))
            continue
        if MARKER in inside:
            continue
        if kind := next((kind for kind, marker in MARKERS.items() if marker in inside), None):
            yield kind, folder
            continue
        below = sorted(name for name, is_folder in inside.items() if is_folder and not name.startswith("."))
        if below and depth == MAX_DEPTH:
            problems.append((show_path(folder, root), f"not looked into: more than {MAX_DEPTH} folders deep"))
            continue
        waiting += [(folder / name, depth + 1) for name in reversed(below)]


def look_at(kind: str, path: Path, *, root: Path) -> Place:
    """A place with its signatures; raises OSError, and UsageError where its description is no regular file."""
    description = read_regular_file(path / MARKERS[kind], max_bytes=MAX_RUN_BYTES)
    folders = [path] if kind == RUN else [path, *list_folders(path / "pairs")]
    facts = [fact for folder in folders for fact in list_records(folder, of=path)]
    content = hashlib.sha256(description)
    content.update(repr([(name, size) for name, size, _ in facts]).encode(errors="surrogateescape"))
    signature = hashlib.sha256(description + repr(facts).encode(errors="surrogateescape")).hexdigest()
    return Place(
        kind=kind,
        path=path,
        name=show_path(path, root),
        signature=signature,
        content=content.hexdigest(),
        records=len(facts),
    )


def list_folders(path: Path) -> list[Path]:
    """The folders in one, by name; none where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def list_records(run: Path, *, of: Path) -> list[tuple[str, int, int]]:
    """(name, bytes, time of the last change) of a run's records, by name; none where there is no folder of them."""
    try:
        with os.scandir(run / "records") as entries:
            found = [
                (entry.name, entry.stat(follow_symlinks=False)) for entry in entries if entry.name.endswith(".json")
            ]
    except OSError:
        return []
    where = run.relative_to(of).as_posix()
    return sorted((f"{where}/{name}", status.st_size, status.st_mtime_ns) for name, status in found)


def show_path(path: Path, root: Path) -> str:
    """The path below the folder of all results, or that folder's own name."""
    inner = path.relative_to(root).as_posix()
    return root.resolve().name if inner == "." else inner
