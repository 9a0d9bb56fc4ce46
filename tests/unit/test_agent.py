"""One rank's agent and its worker as real processes. The workers end early: each is given what it cannot do."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hvbench.launch.agent import Agent
from hvbench.launch.channel import Hub, connect
from hvbench.launch.context import host_name
from hvbench.launch.messages import (
    Broken,
    Exited,
    Hello,
    Message,
    Progress,
    Quit,
    Start,
    Stop,
    Stopped,
    WorkerDescription,
    WorkerFailure,
)
from hvbench.launch.process import LOG_TAIL_BYTES, WorkerProcess, count_oom_kills, worker_environment
from hvbench.launch.task import FailureStatus

SECONDS = 30.0
MessageT = TypeVar("MessageT", bound=Message)
JAX = WorkerDescription(framework="jax", rank=0, world_size=1, local_rank=0, host="a", threads=1, device="cpu", jobs=[])


def start_order(tmp_path: Path, *, generation: int = 0) -> Start:
    """The order to start a worker of a framework that does not exist."""
    (tmp_path / "logs").mkdir(exist_ok=True)
    (tmp_path / "logs" / ".token").touch()
    return Start(
        generation=generation,
        logs=str(tmp_path / "logs"),
        token=".token",
        environment={"OMP_NUM_THREADS": "1"},
        workers=[JAX],
    )


def start(tmp_path: Path, **changes: Any) -> WorkerProcess:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return WorkerProcess(replace(start_order(tmp_path), **changes), scratch=scratch)


def wait_for_end(worker: WorkerProcess) -> Exited:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if ends := [message for message in worker.news() if isinstance(message, Exited)]:
            worker.kill()
            return ends[0]
        time.sleep(0.02)
    raise AssertionError("the worker did not end")


# The environment of a worker


def test_a_worker_does_not_see_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = {
        "OMPI_COMM_WORLD_RANK": "1", "OMPI_MCA_orte_x": "1", "PMIX_RANK": "1", "PMI_RANK": "1", "ORTE_x": "1",
        "HVBENCH_RANK": "1", "HVBENCH_SIZE": "2", "HVBENCH_COORDINATOR": "{}",
    }  # fmt: skip
    for key, value in launcher.items():
        monkeypatch.setenv(key, value)
    assert not set(launcher) & set(worker_environment({}))


def test_a_worker_keeps_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HVBENCH_CACHE", "HOROVOD_FUSION_THRESHOLD", "MY_OWN"):
        monkeypatch.setenv(key, "kept")
    environment = worker_environment({"HOROVOD_RANK": "1", "MY_OWN": "replaced"})
    assert environment["HVBENCH_CACHE"] == environment["HOROVOD_FUSION_THRESHOLD"] == "kept"
    assert (environment["HOROVOD_RANK"], environment["MY_OWN"]) == ("1", "replaced")


# How a worker's end is told


def test_a_worker_that_fails_to_start_says_why(tmp_path: Path) -> None:
    worker = start(tmp_path)
    end = wait_for_end(worker)
    assert end.returncode == 1
    failure = end.failure
    assert (failure.status, failure.phase, failure.index) == ("failed", "start", -1)
    assert failure.message == "ValueError: unknown framework 'jax'; known: pytorch, tensorflow"
    assert failure.is_echo is False


def test_its_log_holds_the_traceback(tmp_path: Path) -> None:
    end = wait_for_end(start(tmp_path))
    log = tmp_path / "logs" / "generation0000-rank0.log"
    assert end.log == str(log)
    assert log.read_text().startswith("Traceback (most recent call last):")
    assert end.log_tail == log.read_text()[-LOG_TAIL_BYTES:]


def test_a_worker_that_was_killed_says_by_what(tmp_path: Path) -> None:
    worker = start(tmp_path)
    os.kill(worker.process.pid, signal.SIGKILL)
    end = wait_for_end(worker)
    assert (end.returncode, end.failure.status) == (-9, "failed")
    assert end.failure.message == "killed by SIGKILL"


def test_a_worker_that_ends_without_a_word_is_still_described(tmp_path: Path) -> None:
    worker = start(tmp_path, environment={"PYTHONHOME": str(tmp_path)})  # no interpreter starts there
    end = wait_for_end(worker)
    message = f"exited with code {end.returncode} and without a word"
    assert end.failure == WorkerFailure(status=FailureStatus.FAILED, phase="start", index=-1, message=message)
    assert "encodings" in end.log_tail


HOW_FAR = [  # what a worker's file says of its training, and what its end says of it
    ({"step": 200, "loss": 3.25}, 200, 3.25),
    ({"step": 200, "loss": None}, 200, None),  # it was not finite
    ({"step": 0, "loss": None}, None, None),  # no step is done
    ({"step": 0, "loss": 2.5}, None, None),
    ({}, None, None),
    *(({"step": step, "loss": 3.25}, None, None) for step in (-1, 1.5, 2**80, True, "200", [200])),
    *(({"step": 200, "loss": loss}, 200, None) for loss in (math.nan, math.inf, 1e200, True, "3.25")),
]


def test_the_end_of_a_training_says_how_far_it_had_come(tmp_path: Path) -> None:
    worker = start(tmp_path)
    worker.process.kill()
    worker.process.wait()
    progress, failure = (worker.folder / f"{name}.json" for name in ("progress", "failure"))
    for written, step, loss in HOW_FAR:
        state = {"phase": "measure", "index": 2, **written}
        failure.unlink(missing_ok=True)
        progress.write_text(json.dumps(state))
        told = [worker.news()[-1].failure]
        progress.write_text(
            json.dumps({"phase": "measure", "index": 2, "step": 7, "loss": 1.0})
        )  # written now and then
        failure.write_text(json.dumps({**state, "status": "failed", "message": "x"}))  # exact
        told.append(worker.news()[-1].failure)
        assert {(end.phase, end.index, end.step, end.loss) for end in told} == {("measure", 2, step, loss)}, written


def test_the_end_is_told_once(tmp_path: Path) -> None:
    worker = start(tmp_path)
    wait_for_end(worker)
    assert worker.is_reported


def test_progress_is_told_before_the_end(tmp_path: Path) -> None:
    worker = start(tmp_path)
    worker.process.wait(SECONDS)
    assert [type(message) for message in worker.news()] == [Progress, Exited]
    worker.kill()


def test_killing_a_worker_waits_for_it_and_clears_its_folder(tmp_path: Path) -> None:
    worker = start(tmp_path)
    worker.kill()
    assert worker.process.returncode in (-9, 1)
    assert not worker.folder.exists()
    assert worker.log.exists()
    worker.kill()  # a second time is no error


def test_a_worker_is_a_process_group_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C on the terminal is for rank 0, and killing a worker takes its children along."""
    worker = start(tmp_path)
    assert os.getpgid(worker.process.pid) == worker.process.pid != os.getpgid(0)
    worker.kill()


def test_without_the_runs_folder_on_this_host_the_log_stays_in_scratch(tmp_path: Path) -> None:
    worker = start(tmp_path, token=".no-such-token")
    worker.kill()
    assert worker.log == tmp_path / "scratch" / "generation0000-rank0.log"


def test_the_kernels_count_of_memory_kills_is_a_number() -> None:
    assert count_oom_kills() >= 0


# The agent on the channel


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(is_single_host=True, backlog=1)
    yield hub
    hub.close()


@pytest.fixture
def agent(hub: Hub) -> Iterator[Agent]:
    agent = Agent(connect(hub.address), rank=3)
    thread = threading.Thread(target=agent.run)
    thread.start()
    yield agent
    hub.send(3, Quit())
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert not agent.scratch.exists()
    agent.connection.close()


def receive(hub: Hub, kind: type[MessageT]) -> MessageT:
    """The next message of this kind."""
    deadline = time.monotonic() + SECONDS
    while (received := hub.receive(deadline - time.monotonic())) is not None:
        rank, message = received
        assert rank == 3
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind.__name__} was received")


def test_an_agent_introduces_its_rank_with_its_host_and_cores(hub: Hub, agent: Agent) -> None:
    hello = receive(hub, Hello)
    assert hello.pid == os.getpid()
    assert hello.host
    assert hello.cores == sorted(os.sched_getaffinity(0))


def test_an_agent_without_the_interface_that_is_asked_for_says_so_and_leaves(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "eth99")
    agent = Agent(connect(hub.address), rank=3)
    agent.run()  # returns
    assert receive(hub, Hello).rank == 3
    message = receive(hub, Broken).message
    assert "HOROVOD_GLOO_IFACE=eth99: no such network interface here; there are " in message
    assert message.startswith(f"on {host_name()}, ") and "\n" not in message
    assert not agent.scratch.exists()


def test_an_agent_starts_a_worker_reports_its_end_and_starts_the_next(hub: Hub, agent: Agent, tmp_path: Path) -> None:
    receive(hub, Hello)
    for generation in range(2):
        hub.send(3, start_order(tmp_path, generation=generation))
        end = receive(hub, Exited)
        assert end.generation == generation
        assert end.failure.message.startswith("ValueError: unknown framework")
        hub.send(3, Stop(generation=generation))
        assert receive(hub, Stopped).generation == generation


def test_an_agent_stops_a_worker_that_still_runs(hub: Hub, agent: Agent, tmp_path: Path) -> None:
    receive(hub, Hello)
    hub.send(3, start_order(tmp_path))
    hub.send(3, Stop(generation=0))
    assert receive(hub, Stopped).generation == 0
    assert agent.workers == {}


def test_an_agent_ends_with_its_worker_when_rank_0_is_gone(hub: Hub, tmp_path: Path) -> None:
    agent = Agent(connect(hub.address), rank=3)
    thread = threading.Thread(target=agent.run)
    thread.start()
    receive(hub, Hello)
    agent.connection.close()  # as the end of rank 0's process does
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert not agent.scratch.exists()
    shutil.rmtree(agent.scratch, ignore_errors=True)
