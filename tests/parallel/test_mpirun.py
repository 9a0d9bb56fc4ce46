"""Ranks that mpirun starts: real mpirun, real MPI, ends that are told, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hvbench.communication.record import CallSettings, Case
from hvbench.launch.mpirun import MpirunWorkers, join_ranks

SECONDS = 300.0
CALLS = CallSettings(warmup_calls=1, least_calls=2, most_calls=2)


def start(tmp_path: Path, *, framework: str, jobs: list[dict[str, Any]], servers: int = 0) -> MpirunWorkers:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / ".token").touch()
    shared = {"framework": framework, "world_size": 2, "host": "a", "threads": 1, "device": "cpu", "jobs": jobs}
    messages = [
        {
            "type": "start", "generation": 0, "logs": str(tmp_path / "logs"), "token": ".token",
            "environment": {"OMP_NUM_THREADS": "1"}, "description": {**shared, "rank": rank, "local_rank": rank},
        }
        for rank in range(2)
    ]  # fmt: skip
    (tmp_path / "scratch").mkdir()
    return MpirunWorkers(join_ranks(messages, servers=servers), scratch=tmp_path / "scratch")


def listen(workers: MpirunWorkers, until: str) -> list[dict[str, Any]]:
    """All news until both ranks have said `until`."""
    deadline, heard = time.monotonic() + SECONDS, []
    while len({message["of_rank"] for message in heard if message["type"] == until}) < 2:
        assert time.monotonic() < deadline, (heard, workers.ranks[0].log.read_text())
        heard += workers.news()
        time.sleep(0.05)
    return heard


def allreduce_job(implementation: str) -> dict[str, Any]:
    case = Case(implementation=implementation, controller="mpi", compression="none", world_size=2, payload_bytes=40_000)
    return {"kind": "allreduce", "case": case.model_dump(), "settings": CALLS.model_dump()}


@pytest.mark.parametrize("implementation", ["ring", "mpi4py"])
def test_a_reference_reduces_every_value_right_on_both_ranks(implementation: str, tmp_path: Path) -> None:
    workers = start(tmp_path, framework=implementation, jobs=[allreduce_job(implementation)])
    try:
        results = [message for message in listen(workers, "result") if message["type"] == "result"]
        assert sorted(message["of_rank"] for message in results) == [0, 1]
        for message in results:
            calls = message["result"]["calls"]
            assert calls["rank"] == message["of_rank"]
            assert calls["wrong_elements"] == 0 and len(calls["call_seconds"]) == 2
    finally:
        workers.kill()


def test_ranks_that_fail_say_why(tmp_path: Path) -> None:
    workers = start(tmp_path, framework="jax", jobs=[])
    try:
        ends = [message for message in listen(workers, "exited") if message["type"] == "exited"]
        told = [end for end in ends if "unknown framework 'jax'" in end["failure"]["message"]]
        assert told and all(end["failure"].get("is_echo") for end in ends if end not in told)
        assert all(end["returncode"] != 0 for end in ends)
    finally:
        workers.kill()


def test_a_server_that_fails_speaks_through_the_first_rank(tmp_path: Path) -> None:
    """Its ranks wait for a point that they never name: the server is ended by a signal, and they with it."""
    job = allreduce_job("ring")
    job["settings"] |= {"most_calls": 100_000, "least_calls": 100_000}
    workers = start(tmp_path, framework="ring", jobs=[job], servers=1)
    try:
        listen(workers, "progress")
        os.kill(int((workers.ranks[2].folder / "pid").read_text()), signal.SIGKILL)
        ends = [message for message in listen(workers, "exited") if message["type"] == "exited"]
        assert {end["of_rank"] for end in ends} == {0, 1}
        assert any("SIGKILL" in end["failure"]["message"] for end in ends)
    finally:
        workers.kill()


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    job = allreduce_job("ring")
    job["settings"] |= {"most_calls": 100_000, "least_calls": 100_000}
    workers = start(tmp_path, framework="ring", jobs=[job])
    try:
        while not all(message["phase"] == "measure" for message in listen(workers, "progress")):
            pass  # they still load
        pids = [int((rank.folder / "pid").read_text()) for rank in workers.ranks]
        assert "time_case" in workers.stack(1)
    finally:
        workers.kill()
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "ranks outlived their mpirun"
        time.sleep(0.05)
