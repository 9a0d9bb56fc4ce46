"""A run's folder: written once, file by file, readable at any moment.

    run.json          what was asked: suite, settings, points, command
    records/KEY.json  one record a launch of a point
    logs/             one log a worker
    tables/ plots/ report.md
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from hvbench.errors import StorageError, UsageError
from hvbench.files import write_json
from hvbench.record import SCHEMA_VERSION, Record
from hvbench.spec import describe_validation_error, shorten

MAX_RECORD_BYTES = 256_000_000


class RunFolder:
    """Reads and writes one run; `open_for_writing` before the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records_path = path / "records"
        self.logs_path = path / "logs"
        self._lock: TextIO | None = None

    def open_for_writing(self) -> None:
        """Make the folder, and hold it against a second sweep until this process ends; raises StorageError."""
        try:
            self.records_path.mkdir(parents=True, exist_ok=True)
            self.logs_path.mkdir(exist_ok=True)
            self._lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}; choose another folder with --out") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            raise StorageError(f"{self.path}: in use by {shorten(owner)}; wait for it or choose another folder with --out") from None
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()

    def write_run(self, run: dict[str, Any]) -> None:
        """Store what was asked; raises StorageError."""
        self._write(self.path / "run.json", {"schema_version": SCHEMA_VERSION, **run})

    def write_record(self, record: Record) -> Path:
        """Store one record under its key; a record is never replaced by a worse one. Raises StorageError."""
        path = self.records_path / f"{record.point_id}.r{record.repeat}.json"
        self._write(path, record.model_dump())
        return path

    def read_run(self) -> dict[str, Any]:
        """What was asked; raises UsageError when this is no run folder."""
        path = self.path / "run.json"
        try:
            run = json.loads(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{self.path}: not a run folder (run.json: {error.strerror})") from None
        except (ValueError, RecursionError):
            raise UsageError(f"{path}: not JSON; was it written by hvbench?") from None
        if not isinstance(run, dict) or run.get("schema_version") != SCHEMA_VERSION:
            found = run.get("schema_version") if isinstance(run, dict) else run
            raise UsageError(f"{path}: schema_version {shorten(found)}; this hvbench reads {SCHEMA_VERSION}")
        return run

    def read_records(self) -> tuple[list[Record], list[str]]:
        """All readable records ordered by name, and one line for each file that is not one."""
        records, problems = [], []
        for path in sorted(self.records_path.glob("*.json")):
            try:
                records.append(read_record(path))
            except UsageError as error:
                problems.append(str(error))
        return records, problems

    def done_keys(self) -> set[str]:
        """Keys of the launches that ended in `ok`."""
        records, _ = self.read_records()
        return {f"{record.point_id}.r{record.repeat}" for record in records if record.outcome.status == "ok"}

    def _write(self, path: Path, value: Any) -> None:
        try:
            write_json(path, value)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}; what was measured before is safe") from None


def read_record(path: Path) -> Record:
    """One record file; raises UsageError with one line when it is not a record of a known schema."""
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise UsageError(f"{path}: larger than {MAX_RECORD_BYTES} bytes; not a record")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: not JSON (truncated?)") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise UsageError(f"{path}: schema_version {shorten(version)}; this hvbench reads {SCHEMA_VERSION}")
    try:
        return Record.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{path}: {describe_validation_error(first, allowed=list(Record.model_fields))}") from None


def new_run_path(root: Path, suite: str) -> Path:
    """`ROOT/SUITE/UTC-TIME`, numbered on if it exists."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    candidates = [root / suite / stamp, *(root / suite / f"{stamp}-{number}" for number in range(2, 100))]
    return next(path for path in candidates if not path.exists())


def latest_run_path(root: Path, suite: str) -> Path | None:
    """The newest run of `suite` below `root`; None when there is none."""
    runs = sorted(path.parent for path in (root / suite).glob("*/run.json"))
    return runs[-1] if runs else None
