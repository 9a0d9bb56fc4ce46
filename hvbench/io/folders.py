"""The folder that a command writes into: a new one by time, one writer at a time, and nothing of the user's in it.

A new folder is made and named in one step, so that two processes of one second never share it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hvbench.errors import StorageError, UsageError
from hvbench.io.atomic import explaining_write_errors, is_abandoned

RESULTS = Path("results")  # below the current folder: where runs go that are given no other place
OTHER_FOLDER = "choose another folder with --out"
LOCK = ".lock"
OWNER = "process "  # what the lock file begins with
SKELETON = ("records", "logs")  # made before the file that says what the run is: alone and empty they hold nothing
TIME = "%Y%m%dT%H%M%SZ"
ASKING_SECONDS = 0.1  # in which who asks whether a folder is locked has his answer
NAME = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d{1,9}))?", re.ASCII)


def make_new_folder(parent: Path) -> Path:
    """Make `PARENT/UTC-TIME`, with -2, -3, … appended where another process was first; raises StorageError."""
    now = datetime.now(UTC).strftime(TIME)
    with explaining_write_errors(parent, hint=OTHER_FOLDER):
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = parent / (now if number == 1 else f"{now}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path


def age_key(path: Path, *, created_at: str | None = None) -> tuple[str, int, str]:
    """What folders are sorted by, oldest first: (time, number of those with that time, name).

    Args:
        path: the folder. The time is that in its name.
        created_at: ISO 8601, in UTC; counts for a folder whose name has no time. Without it such a folder is the oldest.
    """
    match = NAME.fullmatch(path.name)
    if match:
        return match[1], int(match[2] or 1), path.name
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(created_at).astimezone(UTC).strftime(TIME), 1, path.name
    return "", 1, path.name


def require_own_folder(path: Path, *, marker: str) -> None:
    """Raise UsageError where `path` has content and is no run of hvbench: nothing of a user's may be overwritten.

    Args:
        path: a folder, which need not exist.
        marker: the file that says that a command made it, such as `run.json`.
    """
    if not path.is_dir() or (path / marker).is_file():
        return
    foreign = sorted(entry.name for entry in path.iterdir() if not _is_skeleton(entry))
    if foreign:
        raise UsageError(
            f"{path}: is not empty and is no run of this command (it has {foreign[0]} and no {marker}); nothing was "
            f"touched: choose a new or empty folder with --out"
        )


def is_run_folder(path: Path) -> bool:
    """Whether a command of hvbench writes, or has written, into this folder: its lock says so, or a request and records."""
    with contextlib.suppress(OSError):
        if (path / LOCK).is_file() and not (path / LOCK).is_symlink():
            with (path / LOCK).open("rb") as lock:
                if lock.read(len(OWNER)) == OWNER.encode():
                    return True
        return (path / "run.json").is_file() and (path / "records").is_dir()
    return False  # a folder that cannot be read: who lists it says so


def _is_skeleton(entry: Path) -> bool:
    """Whether a command that ended before it wrote its marker may have left `entry`, and nothing in it can be missed."""
    if entry.is_symlink():
        return False
    if entry.name == LOCK and entry.is_file():
        with entry.open("rb") as lock:
            return lock.read(len(OWNER)) in (b"", OWNER.encode())
    if is_abandoned(entry):
        return entry.is_file()
    return entry.name in SKELETON and entry.is_dir() and all(is_abandoned(inner) for inner in entry.iterdir())


def lock_folder(path: Path) -> TextIO:
    """Lock an existing folder against other processes until the returned file is closed; raises StorageError."""
    with explaining_write_errors(path, hint=OTHER_FOLDER):
        lock = (path / LOCK).open("a+", encoding="utf-8", errors="replace")
    try:
        _lock_file(lock)
    except BlockingIOError:
        lock.seek(0)
        name = lock.read(100).strip()
        owner = json.dumps(name) if name else "another process"
        lock.close()
        raise StorageError(f"{path}: in use by {owner}; wait for it or {OTHER_FOLDER}") from None
    except OSError as error:
        lock.close()
        raise StorageError(
            f"{path}: cannot be locked: {error.strerror}; choose a folder on another disk with --out"
        ) from None
    try:
        with explaining_write_errors(path, hint=OTHER_FOLDER):
            lock.seek(0)
            lock.truncate()
            lock.write(f"{OWNER}{os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
    except StorageError:
        with contextlib.suppress(OSError):  # a full disk: the owner's name is still in the buffer
            lock.close()
        raise
    return lock


def _lock_file(lock: TextIO) -> None:
    """Lock an open file; raises BlockingIOError where another process has it for longer than `is_locked` takes to ask."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    time.sleep(ASKING_SECONDS)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether a process writes into the folder; not of one that cannot be read."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Delete what processes of hvbench that are dead left half written in `folders`; raises OSError."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            if is_abandoned(path):
                path.unlink(missing_ok=True)


def remove_if_empty(path: Path) -> None:
    """Remove a folder that a command made and has written nothing into; anything else stays."""
    with contextlib.suppress(OSError):
        if any(not _is_skeleton(entry) for entry in path.iterdir()):
            return
        for name in SKELETON:
            if (path / name).is_dir():
                (path / name).rmdir()
        (path / LOCK).unlink(missing_ok=True)
        path.rmdir()
