"""Atomic writes: a file that another process may read is written under a temporary name and renamed (but `overwrite_json`).

Permissions are those that the user's umask leaves a new file. A temporary name says that it is hvbench's, and whose.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvbench.errors import StorageError

TEMPORARY = re.compile(r"\..+-hvbench-(\d{1,10})-[0-9a-f]{8}\.tmp", re.ASCII | re.DOTALL)
EARLIER_TEMPORARY = re.compile(r"\.[\w.-]{1,200}\.r\d{1,6}(\.a\d{1,6})?\.json-\w{1,12}\.tmp", re.ASCII)  # of a record
EXCLUSIVELY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` atomically; `durable` also waits until it is on disk (fsync). Raises OSError."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as strict JSON (no NaN) atomically."""
    write_text(path, json_text(value), durable=durable)


def overwrite_json(path: Path, value: Any) -> None:
    """Write `value` as strict JSON over what a small file holds: for one that is written often, and read by who takes no harm from half of it.

    A rename over a file makes the file system write it to the disk at once, which takes milliseconds from whatever else runs.
    """
    content = json.dumps(value, allow_nan=False).encode()  # with an indent it would take ten times as long
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def json_text(value: Any) -> str:
    """`value` as strict JSON (no NaN), indented for people."""
    return json.dumps(value, allow_nan=False, indent=1) + "\n"


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.parent / f".{path.name[:50]}-hvbench-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, EXCLUSIVELY, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt may come just after the rename
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk. Raises OSError."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_named_file(path: Path, content: str) -> None:
    """Write `content` to a file that the user named, as a shell's `>` does, but atomically. Raises OSError.

    A link stays one, and so do a device and a pipe (/dev/stdout, /dev/null); a file that exists keeps its permissions.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8") as file:  # a folder is an error here
            file.write(content)
        return
    mode = target.stat().st_mode & 0o7777 if target.exists() else None
    write_text(target, content)
    if mode is not None:
        target.chmod(mode)


def write_new_file(path: Path, content: str) -> None:
    """Write `content` to a file that is not there yet, whole or not at all. Raises FileExistsError, and OSError."""
    descriptor = os.open(path, EXCLUSIVELY, 0o666)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
    except BaseException:
        os.unlink(path)
        raise


def is_abandoned(path: Path) -> bool:
    """Whether `path` is a half-written file of a process of hvbench on this host that is dead."""
    match = TEMPORARY.fullmatch(path.name)
    if not match:
        return bool(EARLIER_TEMPORARY.fullmatch(path.name))
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return int(match[1]) == os.getpid()


@contextlib.contextmanager
def explaining_write_errors(path: Path, *, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a StorageError of one line: `path`, the system's reason, and what to do next."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}{hint and f'; {hint}'}") from None
