"""Launching the cases of an `hvbench allreduce` and storing a record of each launch.

The folder of a run has `allreduce.json` (the request), `records/`, `logs/`, and the tables and plots made from the records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hvbench.communication.plan import CaseJob, make_task
from hvbench.communication.record import AllreduceRecord, CallSettings, RankCalls, read_records
from hvbench.errors import StorageError
from hvbench.io.atomic import explaining_write_errors, write_json
from hvbench.io.clock import utc_now
from hvbench.io.folders import OTHER_FOLDER, lock_folder, remove_abandoned, require_own_folder
from hvbench.launch.coordinator import Coordinator
from hvbench.launch.placement import Member
from hvbench.launch.task import TaskEnd
from hvbench.records.environment import describe_environment
from hvbench.records.record import Outcome
from hvbench.records.store import EARLIER_IS_SAFE, next_attempt
from hvbench.spec.messages import shorten

MAX_MESSAGE = 1000  # characters of an outcome's message
ASKED = "allreduce.json"  # the request: the cases and settings that were asked for

Report = Callable[[CaseJob, AllreduceRecord], None]


@contextlib.contextmanager
def open_folder(path: Path, *, asked: dict[str, Any], resume: bool) -> Iterator[None]:
    """Make the run's folder, lock it for the block against other processes, and write the request.

    Raises:
        UsageError: it has content and is no run of all-reduces.
        StorageError: it cannot be written, another process writes it, or it has a run already, without `resume`.
    """
    require_own_folder(path, marker=ASKED)
    if (path / ASKED).exists() and not resume:
        raise StorageError(f"{path}: holds a run already; go on with --resume, or {OTHER_FOLDER}")
    with explaining_write_errors(path, hint=OTHER_FOLDER):
        for name in ("records", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        with explaining_write_errors(path, hint=OTHER_FOLDER):
            remove_abandoned([path, path / "records"])
            if not (path / ASKED).exists():
                write_json(path / ASKED, {"created_at": utc_now(), **asked})
        yield


def done_keys(path: Path) -> set[str]:
    """Keys of the launches that have an `ok` record."""
    return {record.key for record in read_records(path)[0] if record.outcome.status == "ok"}


def run_cases(
    coordinator: Coordinator, jobs: Sequence[CaseJob], *, settings: CallSettings, folder: Path, report: Report
) -> int:
    """Run `jobs` in order and write a record of each.

    Args:
        coordinator: Of the agents that start the workers.
        jobs: From `plan_jobs`.
        settings: How many calls each case makes.
        folder: Of the run, made by `open_folder`.
        report: Called with each job and its record.

    Returns:
        The number of launches that did not end in `ok`.

    Raises:
        HvbenchError: No further launch is possible.
    """
    tasks = [make_task(job, settings) for job in jobs]
    failed, started_at = 0, utc_now()
    for position, end in coordinator.run(tasks):
        record = make_record(
            jobs[position], end, settings=settings, members=coordinator.members.values(), started_at=started_at
        )
        write_record(folder, record)
        report(jobs[position], record)
        failed += record.outcome.status != "ok"
        started_at = utc_now()
    return failed


def make_record(
    job: CaseJob, end: TaskEnd, *, settings: CallSettings, members: Collection[Member], started_at: str
) -> AllreduceRecord:
    """The record of one launch from the results of all ranks; a wrong value on any rank makes it `failed`."""
    outcome, ranks = asdict(end.failure) if end.failure else None, []
    taking_part = [member for member in members if member.rank < job.case.world_size]  # the launch may have more ranks
    hosts = [member.host for member in taking_part]
    try:
        for result in end.results:
            host = result["calls"]["host"]
            cores = len({core for member in taking_part if member.host == host for core in member.cores})
            ranks.append(
                RankCalls.model_validate({**result["calls"], "cores": cores, "ranks_on_host": hosts.count(host)})
            )
    except (ValidationError, KeyError, TypeError) as error:
        message = f"a rank left a result that is not what a worker writes: {shorten(str(error), limit=200)}"
        outcome, ranks = {"status": "failed", "phase": "measure", "message": message}, []
    if wrong := sum(rank.wrong_elements for rank in ranks):
        worst = max(ranks, key=lambda rank: rank.wrong_elements)
        message = f"{wrong} wrong values; largest relative error {worst.largest_relative_error:.2g}"
        outcome = {"status": "failed", "rank": worst.rank, "phase": "measure", "message": message}
    if outcome and outcome.get("message"):
        outcome = {**outcome, "message": outcome["message"][:MAX_MESSAGE]}
    return AllreduceRecord(
        case=job.case,
        repeat=job.repeat,
        settings=settings,
        outcome=Outcome(**outcome) if outcome else Outcome(status="ok"),
        environment=end.results[0]["environment"] if ranks else describe_environment(),
        ranks=ranks,
        started_at=started_at,
        duration_seconds=end.seconds,
    )


def write_record(folder: Path, record: AllreduceRecord) -> Path:
    """Write a record as the next attempt at its launch; its path. Raises StorageError."""
    path = next_attempt(folder / "records", record.key)
    with explaining_write_errors(path, hint=EARLIER_IS_SAFE):
        write_json(path, record.model_dump())
    return path
