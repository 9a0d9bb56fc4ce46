"""Files and messages that make no sense: the agent lives on, or says why it cannot."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hvbench.errors import LaunchError
from hvbench.launch.agent import Agent
from hvbench.launch.channel import Hub, connect
from hvbench.launch.context import Context
from hvbench.launch.coordinator import Coordinator
from hvbench.launch.messages import (
    Exited,
    Quit,
    Start,
    Stop,
    Stopped,
    WorkerDescription,
    WorkerFailure,
    read_message,
)
from hvbench.launch.process import WorkerProcess
from hvbench.launch.task import FailureStatus, Task
from tests import patience

DESCRIPTION = WorkerDescription(
    framework="jax", rank=0, world_size=1, local_rank=0, host="a", threads=1, device="cpu", jobs=[]
)
GARBAGE = [
    "", "{", "[]", "null", "3", "\x00\x01", '{"phase": 3, "index": "x"}', '{"phase": "start"}', '{"status": "great", "message": "x"}',
    '{"status": "ok", "message": "x"}', '{"status": "failed", "message": ["x"]}', "[" * 100_000, '{"phase": "start", "index": NaN}',
    "9" * 5000,
]  # fmt: skip


def start_order(logs: Path, *, token: str, environment: dict[str, str] | None = None) -> Start:
    return Start(generation=0, logs=str(logs), token=token, environment=environment or {}, workers=[DESCRIPTION])


def end_of_worker(tmp_path: Path, faults: list[dict[str, Any]]) -> Exited:
    """The report on a worker that injects `faults` when it starts, and then fails because there is no framework "jax"."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / ".token").touch()
    faults = [{"job": None, **fault} for fault in faults]  # the worker has no job yet
    environment = {"OMP_NUM_THREADS": "1", "HVBENCH_FAULTS": json.dumps(faults)}
    worker = WorkerProcess(start_order(tmp_path / "logs", token=".token", environment=environment), scratch=tmp_path)
    deadline = time.monotonic() + patience.SECONDS
    while time.monotonic() < deadline:
        if ends := [message for message in worker.news() if isinstance(message, Exited)]:
            worker.kill()
            return ends[0]
        time.sleep(0.02)
    raise AssertionError("the worker did not end")


def test_garbage_in_the_failure_file_is_an_end_without_a_word(tmp_path: Path) -> None:
    end = end_of_worker(
        tmp_path, [{"kind": "garbage", "file": "failure", "phase": "start", "content": '{"status": "great"}'}]
    )
    assert end.failure == WorkerFailure(
        status=FailureStatus.FAILED, phase="start", index=-1, message="exited with code 1 and without a word"
    )


def test_garbage_in_the_progress_file_is_no_progress(tmp_path: Path) -> None:
    end = end_of_worker(tmp_path, [{"kind": "garbage", "file": "progress", "phase": "start", "content": "[[["}])
    assert end.failure.message.startswith("ValueError: unknown framework")
    assert (end.failure.phase, end.failure.index) == ("start", -1)


@pytest.mark.parametrize("name", ["progress.json", "failure.json", "result-0.json"])
@pytest.mark.parametrize("content", GARBAGE)
def test_no_content_of_a_workers_files_surprises_its_agent(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    worker = WorkerProcess(start_order(tmp_path / "logs", token="none"), scratch=tmp_path)
    try:
        (worker.folder / name).write_text(content)
        worker.process.kill()
        worker.process.wait()
        reports = worker.news()
        assert isinstance(reports[-1], Exited) and reports[-1].failure.status == FailureStatus.FAILED
        for report in reports:
            assert read_message(json.loads(json.dumps(report.to_json()))) == report
    finally:
        worker.kill()


# The agent itself


@pytest.fixture
def hub():
    hub = Hub(is_single_host=True, backlog=1)
    yield hub
    hub.close()


def make_coordinator(hub: Hub, path: Path) -> Coordinator:
    return Coordinator(hub, Context(launcher="hvbench", rank=0, size=1, is_single_host=True), run_path=path)


def test_a_defect_in_an_agent_ends_the_sweep_with_its_reason(hub: Hub, tmp_path: Path) -> None:
    agent = Agent(connect(hub.address), rank=0)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            agent.run()
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    (tmp_path / "logs").mkdir()
    coordinator = make_coordinator(hub, tmp_path)
    coordinator.wait_for_members()
    hub.connections[0].send_bytes(b'{"type": "start"}')  # an order that no agent can follow
    task = Task(group=(), framework="pytorch", world_size=1, device="cpu", job={}, timeout_seconds=patience.SECONDS)
    with pytest.raises(
        LaunchError, match=r"rank 0 on .*: its agent is gone \(ValueError: .*\); what was measured is safe"
    ):
        list(coordinator.run([task]))
    thread.join(patience.SECONDS)
    assert caught and not agent.scratch.exists()


def test_an_agent_that_goes_before_all_have_joined_is_noticed_at_once(hub: Hub, tmp_path: Path) -> None:
    coordinator = Coordinator(hub, Context(launcher="hvbench", rank=0, size=2, is_single_host=True), run_path=tmp_path)
    agent = Agent(connect(hub.address), rank=1)
    thread = threading.Thread(target=agent.run)
    thread.start()
    with pytest.raises(LaunchError, match="rank 1: its agent ended as soon as it had joined"):
        threading.Timer(0.5, lambda: hub.send(1, Quit())).start()
        coordinator.wait_for_members()
    thread.join(patience.SECONDS)


def test_an_agent_that_cannot_start_a_worker_says_so_and_lives_on(hub: Hub, tmp_path: Path) -> None:
    agent = Agent(connect(hub.address), rank=0)
    thread = threading.Thread(target=agent.run)
    thread.start()
    coordinator = make_coordinator(hub, tmp_path)
    coordinator.wait_for_members()
    (agent.scratch / "generation-0").write_text("in the way, as a full disk would be")
    hub.send(0, start_order(tmp_path, token="t"))
    rank, message = hub.receive(patience.SECONDS)
    assert (rank, type(message), message.failure.phase) == (0, Exited, "start")
    assert message.failure.message.startswith("cannot start a worker: [Errno 17]")
    hub.send(0, Stop(generation=0))
    assert hub.receive(patience.SECONDS)[1] == Stopped(generation=0)
    hub.send(0, Quit())
    thread.join(patience.SECONDS)
    assert not thread.is_alive()
