"""Launch the cases of an `hvbench allreduce` and store a record of each; it prints nothing.

A run is a folder: `allreduce.json` (what was asked), `records/`, `logs/`, and what follows from the records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hvbench.communication.plan import CaseJob, make_task
from hvbench.communication.record import AllreduceRecord, CallSettings, RankCalls, read_records
from hvbench.errors import StorageError
from hvbench.io.atomic import write_json
from hvbench.launch.coordinator import Coordinator, TaskEnd
from hvbench.launch.placement import Member
from hvbench.records.environment import describe_environment
from hvbench.records.record import Outcome
from hvbench.spec.messages import shorten

MAX_MESSAGE = 1000
ASKED = "allreduce.json"

Report = Callable[[CaseJob, AllreduceRecord], None]


def open_folder(path: Path, *, asked: dict[str, Any], resume: bool) -> None:
    """Make the run's folder and write down what was asked; raises StorageError when it holds a run that is not to go on."""
    if (path / ASKED).exists() and not resume:
        raise StorageError(f"{path}: holds a run already; go on with --resume, or choose another folder with --out")
    try:
        for name in ("records", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
        if not (path / ASKED).exists():
            write_json(path / ASKED, {"created_at": utc_now(), **asked})
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another folder with --out") from None


def done_keys(path: Path) -> set[str]:
    """Launches that have an `ok` record already."""
    return {record.key for record in read_records(path)[0] if record.outcome.status == "ok"}


def run_cases(
    coordinator: Coordinator, jobs: Sequence[CaseJob], *, settings: CallSettings, folder: Path, report: Report
) -> int:
    """Run `jobs` in their order, a record each; how many did not end in `ok`. Raises HvbenchError when it cannot go on."""
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
    """Join what all ranks left of one case; a wrong value on any rank is a failure."""
    outcome, ranks = end.failure, []
    taking_part = [
        member for member in members if member.rank < job.case.world_size
    ]  # of a launch that may have more ranks
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
    """Store a record as the next attempt at its launch; none is ever replaced. Raises StorageError."""
    path, attempt = folder / "records" / f"{record.key}.json", 1
    while path.exists():
        attempt += 1
        path = path.with_name(f"{record.key}.a{attempt}.json")
    try:
        write_json(path, record.model_dump())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; what was measured before is safe") from None
    return path


def utc_now() -> str:
    """The time as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
