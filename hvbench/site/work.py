"""What has to be computed -> summaries: those of an earlier build where nothing has changed, else by processes that leave them as files.

A summary that cannot be made is a `Failure` with its reason, and costs no other: neither does a process that dies.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from hvbench.analysis.show.text import clean_text
from hvbench.errors import HvbenchError, UsageError
from hvbench.io.atomic import write_text
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.records.source import source_digest
from hvbench.site.collect import name_file
from hvbench.site.summary import Failure
from hvbench.spec.knob import Spec

MAX_BYTES = 500_000_000  # of one summary: a run may have ten thousands of points
MAX_DEPTH = 14
MOST_PROCESSES = 8
FEW = 400  # records: fewer are read by this process alone, sooner than others could begin


@dataclass(frozen=True, kw_only=True)
class Task:
    """One summary to be made: `made_of` changes when that would be another one."""

    key: str
    made_of: str
    kind: type[Spec]
    place: str  # what it is about, where it cannot be made
    make: Callable[[], Spec]
    records: int  # that are read for it, about
    prefix: str = ""  # of paths in errors: the page says where that is


@dataclass(kw_only=True)
class Cache:
    """Summaries of this build and of earlier ones, by key, in a folder."""

    folder: Path
    kept: dict[str, tuple[str, Spec]] = field(default_factory=dict)  # those of this process

    def get(self, task: Task) -> Spec | None:
        """The summary of a task if it is still the one that would be made; also a failure that would be one again."""
        made_of = stamp(task)
        found = self.kept.get(task.key)
        if found is None or found[0] != made_of:
            found = self._read(task)
        if found is None or found[0] != made_of:
            return None
        self.kept[task.key] = found
        return found[1]

    def put(self, task: Task, summary: Spec) -> None:
        """Keep a summary; raises OSError."""
        content = {"made_of": stamp(task), "failed": isinstance(summary, Failure), "summary": summary.model_dump()}
        write_text(self.path(task.key), json.dumps(content, allow_nan=False), durable=False)

    def path(self, key: str) -> Path:
        """The file of a summary."""
        return self.folder / f"{name_file(key)}.json"

    def _read(self, task: Task) -> tuple[str, Spec] | None:
        with contextlib.suppress(OSError, UsageError, ValidationError, KeyError, TypeError):
            path = self.path(task.key)
            values = load_json(read_regular_file(path, max_bytes=MAX_BYTES), where=str(path), max_depth=MAX_DEPTH)
            if values["made_of"] == stamp(task):
                kind = Failure if values["failed"] else task.kind
                return values["made_of"], kind.model_validate(values["summary"])
        return None

    def forget_others(self, tasks: Sequence[Task]) -> None:
        """Delete the summaries of what is not there any more."""
        wanted = {self.path(task.key).name for task in tasks}
        for path in self.folder.glob("*.json"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        keys = {task.key for task in tasks}
        self.kept = {key: found for key, found in self.kept.items() if key in keys}


def stamp(task: Task) -> str:
    """What a summary was made of, this hvbench included."""
    return f"{source_digest()} {task.made_of}"


def settle(tasks: Sequence[Task], cache: Cache, *, processes: int) -> dict[str, Spec]:
    """Key -> the summary of every task, or the Failure that it is; computed are those that the cache has not.

    Raises OSError where a summary cannot be kept.
    """
    lacking = [task for task in tasks if cache.get(task) is None]
    wanted = min(processes, len(lacking)) if sum(task.records for task in lacking) > FEW else 1
    if wanted > 1:
        run_processes(share_out(lacking, wanted), cache)
    else:
        do(lacking, cache)
    lost = "not read: the process that read it has died"
    return {task.key: cache.get(task) or Failure(place=task.place, reason=lost) for task in tasks}


def do(tasks: Sequence[Task], cache: Cache) -> None:
    """Make and keep the summaries of some tasks; raises OSError."""
    for task in tasks:
        try:
            summary = task.make()
        except HvbenchError as error:
            summary = Failure(place=task.place, reason=clean_text(shorten_paths(str(error), task), limit=300))
        # Records of strangers may be such as nobody has thought of: a line in the site, and the others go on.
        except Exception as error:
            summary = Failure(place=task.place, reason=describe(error))
        cache.put(task, summary)


def shorten_paths(text: str, task: Task) -> str:
    """What an error says, with paths as they are within what it is about."""
    return text.replace(f"{task.prefix}/", "").replace(f"{task.prefix}: ", "") if task.prefix else text


def describe(error: Exception) -> str:
    """A defect in one line."""
    return clean_text(f"cannot be analysed: {type(error).__name__}: {error}", limit=300)


def share_out(tasks: Sequence[Task], processes: int) -> list[list[Task]]:
    """About as many records for each process; neighbours, which may share records, stay together."""
    whole, shares, before = sum(task.records for task in tasks), [[] for _ in range(processes)], 0
    for task in tasks:
        shares[min(processes - 1, before * processes // max(1, whole))].append(task)
        before += task.records
    return [share for share in shares if share]


def run_processes(shares: Sequence[Sequence[Task]], cache: Cache) -> None:
    """Let a process do each share; whatever ends this one ends them. They talk by files alone."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=work, args=(share, cache), daemon=True) for share in shares]
    try:
        for process in started:
            process.start()
        for process in started:
            process.join()
    finally:
        for process in started:
            if process.pid is not None and process.is_alive():
                process.terminate()
                process.join()


def work(tasks: Sequence[Task], cache: Cache) -> None:
    """The life of such a process: Ctrl-C is for the one that started it, which ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # a full disk: the other one finds out by itself
        do(tasks, cache)


def count_processes() -> int:
    """As many as this process has cores, within reason."""
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
