"""Processes of parameter servers beside ranks' workers: real ones, their ends, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvbench.frameworks.parameter_server.client import ServedRanks, ServerClient
from hvbench.frameworks.parameter_server.frames import PeerGone
from hvbench.launch.messages import Exited, Role, Start, WorkerDescription
from hvbench.launch.placement import Member, assign_slots, worker_settings
from hvbench.launch.served import ServedWorker
from hvbench.launch.servers import add_servers
from hvbench.spec.point import Point
from hvbench.training.weights import initial_weights
from tests import patience
from tests.parallel.ranks import HERE, serving

POINT = Point(
    model="tiny", num_layers=1, num_heads=2, hidden_size=8, sequence_length=6, strategy="parameter_server", servers=3,
    world_size=2, optimizer="sgd", momentum=0.0, weight_decay=0.0, max_gradient_norm=0.0,
)  # fmt: skip

LATE_SECONDS = 0.5  # after which rank 0 begins the point: the other has something to ask of the servers long before


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedWorker]:
    """The three servers of a launch of two ranks, all beside the first, of which this process is both; the first server stands for its worker."""
    members = [Member(rank=rank, host=HERE, pid=0, cores=[], cgroup_cpu_quota=None) for rank in range(2)]
    slots = assign_slots(members)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / ".token").touch()
    with serving(slots) as port:
        orders = [
            Start(
                generation=0,
                logs=str(tmp_path / "logs"),
                token=".token",
                environment=worker_settings(slot, address=HERE, port=port, threads=1),
                workers=[
                    WorkerDescription(
                        framework="pytorch", rank=slot.rank, world_size=2, local_rank=0, host=HERE, threads=1, device="cpu",
                        jobs=[],
                    )
                ],
            )
            for slot in slots
        ]  # fmt: skip
        orders = add_servers(orders, servers=3)
        for name, value in orders[0].environment.items():
            monkeypatch.setenv(name, value)
        servers = [worker for order in orders for worker in order.workers if worker.role == Role.SERVER]
        workers = ServedWorker(replace(orders[0], workers=servers), scratch=tmp_path / "scratch")
        try:
            yield workers
        finally:
            workers.kill()
            assert not any(Path(f"/proc/{process.process.pid}").exists() for process in workers.processes)


def train(rank: int, found: dict[int, list[object]], *, until: threading.Event | None = None) -> None:
    """Two updates of one rank, and what it was told; with `until` averages until the servers are gone."""
    ranks = ServedRanks(rank=rank, world_size=2)
    weights = initial_weights(POINT)
    if rank == 0:
        time.sleep(LATE_SECONDS)
    client = ServerClient(POINT, ranks, weights)
    gradients = {name: np.full(value.shape, rank + 1, np.float32) for name, value in weights.items()}
    if until is not None:
        try:
            while True:
                client.average(gradients)
                until.set()
        except PeerGone as error:
            found[rank] = [str(error)]
        for server in ranks.servers:
            server.stream.close()
        return
    for _ in range(2):
        pushed = client.update(gradients, learning_rate=0.5, loss_scale=1.0)
    parameters = {name: value.copy() for name, value in pushed.parameters.items()}
    found[rank] = [parameters, pushed.gradient_norm, ranks.gather(float(rank)), client.state()[1]["updates"]]
    client.leave()
    if rank == 0:
        ranks.leave()
    else:  # as one whose agent ends it when its jobs are done: no reason to complain, nor to keep the others
        for server in ranks.servers:
            server.stream.close()


def run_both(**how: object) -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    other = threading.Thread(target=train, args=(1, found), kwargs=how)
    other.start()
    train(0, found, **how)
    other.join(timeout=patience.SECONDS)
    return found


def test_ranks_train_through_three_servers_which_end_with_them(beside: ServedWorker) -> None:
    found = run_both()
    weights = initial_weights(POINT)
    values = sum(value.size for value in weights.values())
    for rank in (0, 1):
        parameters, norm, gathered, updates = found[rank]
        assert parameters.keys() == weights.keys() and updates == 2 and gathered == [0.0, 1.0]
        assert norm == pytest.approx(1.5 * values**0.5, rel=1e-12)
        for name, value in weights.items():
            assert np.array_equal(parameters[name], value - np.float32(0.75) - np.float32(0.75)), name
    assert [process.process.wait(timeout=patience.SECONDS) for process in beside.processes] == [0, 0, 0]
    assert all(not process.log.read_text() for process in beside.processes)


def test_a_server_that_is_killed_ends_its_rank_with_its_reason_and_the_ranks_see_that_it_is_gone(
    beside: ServedWorker,
) -> None:
    begun = threading.Event()
    found: dict[int, list[object]] = {}
    threads = [threading.Thread(target=train, args=(rank, found), kwargs={"until": begun}) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    assert begun.wait(timeout=patience.SECONDS)
    os.kill(beside.processes[1].process.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=patience.SECONDS)
    assert all(" is gone" in found[rank][0] for rank in (0, 1)), found
    deadline = time.monotonic() + patience.SECONDS
    while not (ends := [report for report in beside.news() if isinstance(report, Exited)]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (end,) = ends
    assert end.failure.message == "parameter server 2: killed by SIGKILL" and not end.failure.is_echo
    assert end.rank == beside.worker.rank and beside.is_reported
