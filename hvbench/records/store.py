"""Reading and writing the folder of a run. Every file is written once and atomically, so a run can be read at any time.

    run.json             the request: suite, settings, points, command
    records/KEY.json     the record of one launch; KEY is POINT_ID.rREPEAT
    records/KEY.a2.json  the second attempt at that launch, after the first did not end in `ok`; then .a3, …
    logs/                one log per worker
    journal.jsonl        what happens while a sweep runs (`hvbench.records.journal`)
    tables/ plots/ report.html report.md

A record is never replaced; reports use the newest readable attempt at each launch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from hvbench.errors import UsageError
from hvbench.io.atomic import explaining_write_errors, write_json
from hvbench.io.folders import (
    NAME,
    OTHER_FOLDER,
    age_key,
    lock_folder,
    make_new_folder,
    remove_abandoned,
    remove_if_empty,
    require_own_folder,
)
from hvbench.io.untrusted import load_json, read_regular_file, refuse_links
from hvbench.records.record import SCHEMA_VERSION, Record, Status
from hvbench.spec.messages import describe_validation_error, shorten

MAX_RECORD_BYTES = 256_000_000
MAX_RUN_BYTES = 16_000_000
MAX_ENVIRONMENT_CHARACTERS = 1_000_000
MAX_DEPTH = 12  # of nesting: a record needs 5, an environment and run.json may need some more
EARLIER_IS_SAFE = "what was measured before is safe"
OWN_NAMES = (".lock", "run.json", "journal.jsonl", "records", "checkpoints", "logs", "tables", "plots", "formats")
RECORD_NAME = re.compile(
    r"(?P<point_id>[\w.-]{1,200})\.r(?P<repeat>\d{1,6})(?:\.a(?P<attempt>\d{1,6}))?\.json", re.ASCII
)


def _name_library(record: dict[str, Any]) -> dict[str, Any]:
    """A record from before `gemm` could be chosen, with the library that there was."""
    point = record.get("point")
    return {**record, "point": {"gemm": "default", **point}} if isinstance(point, dict) else record


# Schema version -> the function from a record of that version to the next. Every older version keeps its entry.
Migration = Callable[[dict[str, Any]], dict[str, Any]]
# All fields that versions 2 to 5 added have defaults, and but for one they are what there was before.
MIGRATIONS: dict[int, Migration] = {1: _name_library, **dict.fromkeys((2, 3, 4), lambda record: record)}
RUN_MIGRATIONS: dict[int, Migration] = dict.fromkeys((1, 2, 3, 4), lambda run: run)


class RunFolder:
    """One run on disk; call `open_for_writing` before the first write."""

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        """`is_new`: this process has made the folder just now, for this run."""
        self.path = path
        self.is_new = is_new
        self.records_path = path / "records"
        self.logs_path = path / "logs"
        self._lock: TextIO | None = None

    def open_for_writing(self) -> None:
        """Make the folder and lock it against other sweeps, until `close` or the process's end.

        Raises:
            UsageError: it has content and is no run.
            StorageError: it cannot be written, or another process writes it.
        """
        refuse_links(self.path, names=OWN_NAMES)
        require_own_folder(self.path, marker="run.json")
        self.is_new = self.is_new or not self.path.exists()
        with explaining_write_errors(self.path, hint=OTHER_FOLDER):
            self.records_path.mkdir(parents=True, exist_ok=True)
            self.logs_path.mkdir(exist_ok=True)
        self._lock = lock_folder(self.path)
        with explaining_write_errors(self.path, hint=OTHER_FOLDER):
            remove_abandoned([self.path, self.records_path])

    def discard(self) -> None:
        """Close the folder, and remove it if it was made for a run that did not come about."""
        self.close()
        if self.is_new:
            remove_if_empty(self.path)

    def close(self) -> None:
        """Release the lock; also called when the object is deleted."""
        if self._lock:
            lock, self._lock = self._lock, None
            with contextlib.suppress(OSError):  # a full disk: the owner's name could not be written
                lock.close()

    __del__ = close

    def write_run(self, run: dict[str, Any]) -> None:
        """Write `run.json`, the request. Raises StorageError."""
        self._write(self.path / "run.json", {"schema_version": SCHEMA_VERSION, **run})

    def write_record(self, record: Record) -> Path:
        """Write one record as the next attempt at its launch; its path. Raises StorageError."""
        path = next_attempt(self.records_path, record.key)
        self._write(path, record.model_dump())
        return path

    def read_run(self) -> dict[str, Any]:
        """The content of `run.json`, in the current schema. Raises UsageError where this is no run folder."""
        path = self.path / "run.json"
        refuse_links(self.path, names=OWN_NAMES)
        try:
            content = read_regular_file(path, max_bytes=MAX_RUN_BYTES)
        except OSError as error:
            raise UsageError(f"{self.path}: not a run folder (run.json: {error.strerror})") from None
        return parse_run(content, where=str(path))

    def read_records(self) -> tuple[list[Record], list[str]]:
        """(newest readable attempt at every launch, by point and repeat; a line for each file that is not a record)."""
        attempts, problems = self.read_attempts()
        newest = {(record.point_id, record.repeat): record for _, record in attempts}  # later attempts come later
        return [newest[key] for key in sorted(newest)], problems

    def read_attempts(self) -> tuple[list[tuple[int, Record]], list[str]]:
        """(all readable records as (attempt, record), by point, repeat and attempt; a line for each file that is not one)."""
        attempts: list[tuple[int, Record]] = []
        problems = []
        for path in sorted(self.records_path.glob("*.json")):
            try:
                record = read_record(path)
                attempts.append((require_name(path, record), record))
            except UsageError as error:
                problems.append(str(error))
        return sorted(attempts, key=lambda pair: (pair[1].point_id, pair[1].repeat, pair[0])), problems

    def read_newest(self, key: str) -> Record | None:
        """The newest attempt at one launch; None where there is none, or it is no record."""
        name = RECORD_NAME.fullmatch(f"{key}.json")
        if name is None or name["attempt"]:
            return None
        paths = list(itertools.takewhile(os.path.lexists, list_attempts(self.records_path, key)))
        with contextlib.suppress(UsageError):
            return read_record(paths[-1]) if paths else None
        return None

    def done_keys(self, *, retry: Collection[Status] | None = None) -> set[str]:
        """Keys of the launches that need no repetition: those that ended in `ok`, or, with `retry`, in an outcome not in it."""
        records, _ = self.read_records()
        return {
            record.key
            for record in records
            if record.outcome.status == "ok" or (retry is not None and record.outcome.status not in retry)
        }

    def _write(self, path: Path, value: Any) -> None:
        with explaining_write_errors(path, hint=EARLIER_IS_SAFE):
            write_json(path, value)


def next_attempt(folder: Path, key: str) -> Path:
    """Path in `folder` of the next attempt at the launch `key`: KEY.json, then KEY.a2.json, …; none is ever replaced."""
    return next(path for path in list_attempts(folder, key) if not os.path.lexists(path))


def list_attempts(folder: Path, key: str) -> Iterator[Path]:
    """The paths of the first, the second, … attempt at the launch `key`, without end."""
    return (folder / (f"{key}.json" if number == 1 else f"{key}.a{number}.json") for number in itertools.count(1))


def parse_run(content: bytes, *, where: str) -> dict[str, Any]:
    """The content of `run.json` in the current schema, from its bytes. Raises UsageError."""
    run = migrate(load_json(content, where=where, max_depth=MAX_DEPTH), where=where, migrations=RUN_MIGRATIONS)
    require_json(run, where=where, name="it")
    return run


def read_record(path: Path) -> Record:
    """The record in one file, in the current schema. Raises UsageError, one line, where it holds no record."""
    try:
        content = read_regular_file(path, max_bytes=MAX_RECORD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_record(content, where=str(path))


def parse_record(content: bytes, *, where: str, migrations: Mapping[int, Migration] = MIGRATIONS) -> Record:
    """The record in `content`, in the current schema.

    Args:
        content: JSON of any schema version that `migrations` knows; may be untrusted.
        where: The source's name for messages.
        migrations: Schema version -> function to the next version.

    Raises:
        UsageError: It is no record, or one of a newer schema; one line that names the key and what is allowed.
    """
    values = migrate(load_json(content, where=where, max_depth=MAX_DEPTH), where=where, migrations=migrations)
    try:
        record = Record.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{where}: {describe_validation_error(first, allowed=list(Record.model_fields))}") from None
    if require_json(record.environment, where=where, name="environment") > MAX_ENVIRONMENT_CHARACTERS:
        raise UsageError(f"{where}: environment is longer than {MAX_ENVIRONMENT_CHARACTERS} characters")
    return record


def require_json(value: Any, *, where: str, name: str) -> int:
    """Length of `value` as JSON text. Raises UsageError for NaN and infinities, which Python reads but JSON lacks."""
    try:
        return len(json.dumps(value, allow_nan=False))
    except ValueError:
        raise UsageError(f"{where}: {name} holds NaN or an infinity") from None


def migrate(values: Any, *, where: str, migrations: Mapping[int, Migration]) -> dict[str, Any]:
    """A record (or run.json) of an older schema, migrated version by version to the current one. Raises UsageError."""
    while (
        isinstance(values, dict)
        and type(values.get("schema_version")) is int
        and values["schema_version"] in migrations
    ):
        version = values["schema_version"]
        try:
            values = {**migrations[version](values), "schema_version": version + 1}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{where}: not of schema_version {version}: {shorten(str(error))}") from None
    require_version(values, where=where)
    return values


def require_version(values: Any, *, where: str) -> None:
    """Raise UsageError unless `values` is an object of the current schema version."""
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise UsageError(
            f"{where}: schema_version {shorten(version)} is newer than this hvbench reads ({SCHEMA_VERSION}): upgrade hvbench"
        )
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UsageError(f"{where}: schema_version {shorten(version)}; this hvbench reads {SCHEMA_VERSION}")


def require_name(path: Path, record: Record) -> int:
    """The attempt number in a record's file name. Raises UsageError where the name does not fit the record."""
    match = RECORD_NAME.fullmatch(path.name)
    if not match or (match["point_id"], int(match["repeat"])) != (record.point_id, record.repeat):
        raise UsageError(f"{path}: holds the record of {shorten(record.key)}, not of its name's")
    return int(match["attempt"] or 1)


def new_run_path(root: Path, suite: str) -> Path:
    """A new folder of this process alone, `ROOT/SUITE/UTC-TIME`; raises StorageError."""
    return make_new_folder(root / suite)


def latest_run_path(root: Path, suite: str) -> Path | None:
    """The newest run of `suite` below `root`; None where there is none."""
    return newest_folder((root / suite).glob("*/run.json"))


def newest_folder(markers: Iterable[Path]) -> Path | None:
    """The folder that was made last, of those that hold these files (`run.json`, `ab.json`); None where there is none."""
    return max(
        (path.parent for path in markers), key=lambda path: age_key(path, created_at=read_time(path)), default=None
    )


def read_time(folder: Path) -> str | None:
    """When a run whose folder is not named by time was begun, as its run.json says; None where it does not."""
    if NAME.fullmatch(folder.name):
        return None
    with contextlib.suppress(UsageError):
        return str(RunFolder(folder).read_run().get("created_at"))
    return None
