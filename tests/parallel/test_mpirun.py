"""Ranks that mpirun starts: real mpirun, real MPI, ends that are told, and nothing left behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hvbench.communication.record import AllreduceRequest, CallSettings, Case
from hvbench.launch.messages import Exited, Progress, Result, Start, WorkerDescription
from hvbench.launch.mpirun import MpirunWorkers
from hvbench.launch.starting import join_ranks
from tests import patience

ReportT = TypeVar("ReportT", Exited, Progress, Result)
CALLS = CallSettings(warmup_calls=1, least_calls=2, most_calls=2)


def start(tmp_path: Path, *, framework: str, jobs: list[dict[str, Any]]) -> MpirunWorkers:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / ".token").touch()
    shared = {"framework": framework, "world_size": 2, "host": "a", "threads": 1, "device": "cpu", "jobs": jobs}
    orders = [
        Start(
            generation=0,
            logs=str(tmp_path / "logs"),
            token=".token",
            environment={"OMP_NUM_THREADS": "1"},
            workers=[WorkerDescription(rank=rank, local_rank=rank, **shared)],
        )
        for rank in range(2)
    ]
    (tmp_path / "scratch").mkdir()
    return MpirunWorkers(join_ranks(orders), scratch=tmp_path / "scratch")


def listen(workers: MpirunWorkers, until: type[ReportT]) -> list[ReportT]:
    """All reports of the kind `until`, once both ranks have one."""
    deadline, found = time.monotonic() + patience.SECONDS, []
    while len({report.rank for report in found}) < 2:
        assert time.monotonic() < deadline, (found, workers.ranks[0].log.read_text())
        found += [message for message in workers.news() if isinstance(message, until)]
        time.sleep(0.05)
    return found


def allreduce_job(implementation: str) -> dict[str, Any]:
    case = Case(implementation=implementation, controller="mpi", compression="none", world_size=2, payload_bytes=40_000)
    return AllreduceRequest(case=case, settings=CALLS).model_dump()


@pytest.mark.parametrize("implementation", ["ring", "mpi4py"])
def test_a_reference_reduces_every_value_right_on_both_ranks(implementation: str, tmp_path: Path) -> None:
    workers = start(tmp_path, framework=implementation, jobs=[allreduce_job(implementation)])
    try:
        results = listen(workers, Result)
        assert sorted(message.rank for message in results) == [0, 1]
        for message in results:
            calls = message.result["calls"]
            assert calls["rank"] == message.rank
            assert calls["wrong_elements"] == 0 and len(calls["call_seconds"]) == 2
    finally:
        workers.kill()


def test_ranks_that_fail_say_why(tmp_path: Path) -> None:
    workers = start(tmp_path, framework="jax", jobs=[])
    try:
        ends = listen(workers, Exited)
        told = [end for end in ends if "unknown framework 'jax'" in end.failure.message]
        assert told and all(end.failure.is_echo for end in ends if end not in told)
        assert all(end.returncode != 0 for end in ends)
    finally:
        workers.kill()


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    job = allreduce_job("ring")
    job["settings"] |= {"most_calls": 100_000, "least_calls": 100_000}
    workers = start(tmp_path, framework="ring", jobs=[job])
    try:
        while not all(message.phase == "measure" for message in listen(workers, Progress)):
            pass  # they still load
        pids = [int((rank.folder / "pid").read_text()) for rank in workers.ranks]
        assert "time_case" in workers.stack(1)
    finally:
        workers.kill()
    deadline = time.monotonic() + patience.SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "ranks outlived their mpirun"
        time.sleep(0.05)
