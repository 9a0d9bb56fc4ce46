"""Atomic writes: a file that another process may read is written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvbench.errors import StorageError


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` atomically; `durable` also waits until it is on disk (fsync). Raises OSError."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as strict JSON (no NaN) atomically."""
    write_text(path, json.dumps(value, allow_nan=False, indent=1) + "\n", durable=durable)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically: temporary file, fsync, rename, fsync of the folder."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt may come just after the rename
            os.unlink(temporary)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def explaining_write_errors(path: Path, *, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a StorageError of one line: `path`, the system's reason, and what to do next."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}{hint and f'; {hint}'}") from None
