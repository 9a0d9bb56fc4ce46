"""Rank 0's decisions: places and threads of workers, which end of a generation explains it, and who never joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hvbench.errors import LaunchError, UsageError
from hvbench.launch import coordinator as module
from hvbench.launch import workers as workers_module
from hvbench.launch.channel import Hub, connect, receive, send
from hvbench.launch.context import Context
from hvbench.launch.coordinator import Coordinator, running_tasks
from hvbench.launch.generation import Generation
from hvbench.launch.lane import Crew, Lane
from hvbench.launch.messages import EndEarly, Exited, Hello, Progress, Result, Start, Stop, WorkerFailure
from hvbench.launch.placement import Member, assign_slots, threads_per_worker, worker_settings
from hvbench.launch.settings import chosen_threads
from hvbench.launch.starting import Rendezvous, make_orders, outlast_suspension
from hvbench.launch.starts import Starts, kind_of_workers
from hvbench.launch.task import Failure, FailureStatus, StartFailed, Task, TaskEnd
from hvbench.launch.workers import WorkerSet


def member(rank: int, host: str = "a", *, cores: tuple[int, ...] = (0, 1), quota: float | None = None) -> Member:
    return Member(rank=rank, host=host, pid=1000 + rank, cores=list(cores), cgroup_cpu_quota=quota)


# Places


def places(hosts: str) -> list[tuple[int, ...]]:
    """rank, local rank and size, cross rank and size of each member, in rank order; one letter a host."""
    pytest.importorskip("horovod")
    slots = assign_slots([member(rank, host) for rank, host in enumerate(hosts)])
    assert [slot.hostname for slot in slots] == list(hosts)
    assert {slot.size for slot in slots} == {len(hosts)}
    return [(slot.rank, slot.local_rank, slot.local_size, slot.cross_rank, slot.cross_size) for slot in slots]


def test_one_host() -> None:
    assert places("aa") == [(0, 0, 2, 0, 1), (1, 1, 2, 0, 1)]


def test_two_hosts_of_two() -> None:
    assert places("aabb") == [(0, 0, 2, 0, 2), (1, 1, 2, 0, 2), (2, 0, 2, 1, 2), (3, 1, 2, 1, 2)]


def test_ranks_dealt_to_hosts_in_turn() -> None:
    assert places("abab") == [(0, 0, 2, 0, 2), (1, 0, 2, 1, 2), (2, 1, 2, 0, 2), (3, 1, 2, 1, 2)]


def test_uneven_hosts_cross_only_where_both_have_a_rank() -> None:
    assert places("aab") == [(0, 0, 2, 0, 2), (1, 1, 2, 0, 1), (2, 0, 1, 1, 2)]
    assert places("abb") == [(0, 0, 1, 0, 2), (1, 0, 2, 1, 2), (2, 1, 2, 0, 1)]


@pytest.mark.parametrize("hosts", ["a", "aaaaaaaa", "abc", "aabbbc", "abcabca"])
def test_places_are_consistent_whatever_the_hosts(hosts: str) -> None:
    found = places(hosts)
    by_rank = dict(zip(range(len(hosts)), hosts, strict=True))
    for host in set(hosts):
        locals_ = [place[1] for place in found if by_rank[place[0]] == host]
        assert locals_ == list(range(len(locals_)))
    for local_rank in {place[1] for place in found}:
        crossing = [place for place in found if place[1] == local_rank]
        assert sorted(place[3] for place in crossing) == list(range(len(crossing)))
        assert {place[4] for place in crossing} == {len(crossing)}


# Threads


@pytest.mark.parametrize(
    ("members", "threads"),
    [
        ([member(0, cores=(0, 1)), member(1, cores=(0, 1))], 1),  # both may use both cores: 2 / 2
        ([member(0, cores=(0,)), member(1, cores=(1,))], 1),  # bound to one each: the union counts
        ([member(0, cores=tuple(range(8)))], 8),
        ([member(rank, cores=tuple(range(8))) for rank in range(3)], 2),  # 8 / 3, rounded down
        ([member(rank, cores=(0, 1)) for rank in range(8)], 1),  # more ranks than cores
        ([member(rank, cores=tuple(range(16)), quota=4.0) for rank in range(2)], 2),  # the quota of the container
        ([member(0, cores=(0, 1), quota=64.0)], 2),  # a quota above the cores gives none
        ([member(0, cores=(0, 1), quota=0.5)], 1),  # never none at all
        ([member(0, cores=(0, 1, 2, 3)), member(1, "b", cores=(0, 1))], 4),  # another host's ranks do not count
    ],
)
def test_threads_are_the_hosts_cores_divided_by_its_ranks(members: list[Member], threads: int) -> None:
    assert threads_per_worker(members, host="a") == threads


def test_a_point_on_fewer_ranks_keeps_the_threads_of_the_launch(hub: Hub, tmp_path: Path) -> None:
    """4 ranks on 8 cores: a rank that trains alone has 2 threads, as beside the others, or scaling would flatter one."""
    pytest.importorskip("horovod")
    (tmp_path / "logs").mkdir()
    coordinator = make_coordinator(hub, tmp_path, size=4)
    connections = [connect(hub.address) for _ in range(4)]
    for rank, connection in enumerate(connections):
        send(connection, Hello(**vars(member(rank, cores=tuple(range(8))))))
    coordinator.wait_for_members()
    for world_size in (4, 1):
        fields = {"framework": "pytorch", "device": "cpu", "job": {}, "timeout_seconds": 1.0}
        task = Task(group=(world_size,), world_size=world_size, **fields)
        workers = WorkerSet(coordinator.state, [task], number=next(coordinator.numbers))
        workers.stop(patience_seconds=0.0)
        coordinator.state.lost.clear()  # nobody has answered
        started = [receive(connection) for connection in connections[:world_size]]
        assert {worker.threads for order in started for worker in order.workers} == {2}
        assert {order.environment["OMP_NUM_THREADS"] for order in started} == {"2"}
        for number, connection in enumerate(connections[:world_size]):
            assert receive(connection) == Stop(generation=workers.generation.number), number
    assert not connections[1].poll(0.1)  # it sits the point out
    for connection in connections:
        connection.close()


def test_what_workers_wait_for_others_is_neither_their_time_nor_held_against_their_limit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 s to load, then 995 s of which 990 are other workers' turns: 10 s of its own, and 5 s of its limit of 10."""
    pytest.importorskip("horovod")
    (tmp_path / "logs").mkdir()
    coordinator = make_coordinator(hub, tmp_path, size=1)
    clock = {"now": 0.0, "waited": 0.0}
    with connect(hub.address) as connection:
        send(connection, Hello(**vars(member(0))))
        coordinator.wait_for_members()
        monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: clock["now"]))
        fields = {"framework": "pytorch", "device": "cpu", "job": {}, "timeout_seconds": 10.0}
        workers = WorkerSet(coordinator.state, [Task(group=(), world_size=1, **fields)] * 2, number=0)
        workers.waited_seconds = lambda: clock["waited"]
        workers.take_up(0)
        clock["now"] = 5.0
        workers.note(Progress(generation=0, rank=0, index=0, phase="data"))
        assert workers.look() is None and workers.ends_at == 15.0
        clock |= {"now": 1000.0, "waited": 990.0}
        assert workers.look() is None and workers.ends_at == 1005.0
        workers.note(Result(generation=0, rank=0, index=0, result={"a": 1}))
        end = workers.look()
        assert (end.results, end.failure, end.seconds, end.waited_seconds) == ([{"a": 1}], None, 10.0, 990.0)
        workers.take_up(1)
        assert workers.look() is None and workers.ends_at == 1010.0, "the waits of the task before are over"
        clock["now"] = 1010.5  # its time was up in its last turn; it is suspended by now, and cannot say where it is
        workers.describe_wait = lambda: "it waited for its turn, which tensorflow had"
        failure = workers.look().failure
        assert (failure.status, failure.rank, failure.phase) == ("timeout", 0, "data")
        assert failure.message == (
            "not finished after 10 s without its waits for other workers; at their end it waited for its turn, which tensorflow had"
        )
        workers.stop(patience_seconds=0.0)
        assert coordinator.state.living == {}


@pytest.mark.parametrize(("text", "threads"), [("4", 4), (" 2 ", 2), ("3,1", 3), ("", None), (None, None)])
def test_the_threads_that_the_user_chose_are_obeyed(text: str | None, threads: int | None) -> None:
    assert chosen_threads({} if text is None else {"OMP_NUM_THREADS": text}) == threads


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2,", "99999", "²"])
def test_no_number_of_threads_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"OMP_NUM_THREADS=.*: must be a whole number from 1 to 9999"):
        chosen_threads({"OMP_NUM_THREADS": text})


def test_workers_are_started_with_the_chosen_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("horovod")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    members = [member(rank) for rank in range(2)]
    task = Task(group=(2,), world_size=2, framework="pytorch", device="cpu", job={}, timeout_seconds=1.0)
    rendezvous = Rendezvous(generation=0, address="127.0.0.1", port=1, logs="logs", token="t", environment={})
    orders = make_orders([task], assign_slots(members), members=members, rendezvous=rendezvous)
    assert [(order.workers[0].threads, order.environment["OMP_NUM_THREADS"]) for order in orders] == [(3, "3")] * 2


@pytest.mark.parametrize(
    ("before", "beside", "expected"),
    [
        ({}, {}, None),
        ({}, {"HVBENCH_TURNS": ""}, None),
        ({}, {"HVBENCH_TURNS": "pytorch:/socket"}, "86400"),
        ({"HVBENCH_TURNS": "a:/socket"}, {}, "86400"),  # an arm of hvbench ab
        ({"HOROVOD_GLOO_TIMEOUT_SECONDS": "7"}, {"HVBENCH_TURNS": "pytorch:/socket"}, None),  # stays what it is
    ],
)
def test_suspended_workers_are_not_taken_for_hung(
    before: dict[str, str], beside: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo gives up after 30 s; where the frameworks' points are not the same ones, the first turn may be minutes away."""
    for name in ("HVBENCH_TURNS", "HOROVOD_GLOO_TIMEOUT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    assert outlast_suspension(beside).get("HOROVOD_GLOO_TIMEOUT_SECONDS") == expected


def test_a_workers_horovod_is_told_its_place_and_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("horovod")
    monkeypatch.delenv("HOROVOD_GLOO_IFACE", raising=False)
    slot = assign_slots([member(rank, host) for rank, host in enumerate("aab")])[1]
    settings = worker_settings(slot, address="10.0.0.1", port=4711, threads=3)
    assert settings == {
        "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "4711",
        "HOROVOD_HOSTNAME": "a", "HOROVOD_RANK": "1", "HOROVOD_SIZE": "3",
        "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2", "HOROVOD_CROSS_RANK": "0", "HOROVOD_CROSS_SIZE": "1",
        "OMP_NUM_THREADS": "3",
    }  # fmt: skip


def test_on_one_host_workers_meet_on_loopback_unless_the_user_chose_an_interface(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("horovod")
    slot = assign_slots([member(0), member(1)])[0]
    monkeypatch.delenv("HOROVOD_GLOO_IFACE", raising=False)
    assert worker_settings(slot, address="127.0.0.1", port=1, threads=1)["HOROVOD_GLOO_IFACE"] == "lo"
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "eth0")
    assert "HOROVOD_GLOO_IFACE" not in worker_settings(slot, address="127.0.0.1", port=1, threads=1)


# The first cause


def end(status: str = "failed", *, returncode: int = 1, is_echo: bool = False) -> Exited:
    failure = WorkerFailure(status=FailureStatus(status), message="", is_echo=is_echo)
    return Exited(generation=0, rank=0, returncode=returncode, failure=failure)


@pytest.mark.parametrize(
    ("ends", "cause"),
    [
        ({0: end(is_echo=True), 1: end(returncode=-9)}, 1),  # a peer only heard of the kill
        ({0: end(is_echo=True), 1: end()}, 1),  # … of the exception
        ({0: end(), 1: end("oom")}, 1),  # memory explains whatever else went wrong
        ({0: end("oom", is_echo=True), 1: end()}, 0),
        ({0: end(returncode=0), 1: end(returncode=-9)}, 1),  # a silent exit explains less than a kill
        ({0: end(is_echo=True), 1: end(returncode=0)}, 1),
        ({2: end(), 1: end()}, 1),  # alike: the lowest rank
        ({1: end(is_echo=True)}, 1),  # an echo alone is still an end
        ({0: end(), 1: end(returncode=-9)}, 1),  # an echo that was not recognised does not hide a kill
    ],
)
def test_the_end_that_explains_the_others_comes_first(ends: dict[int, Exited], cause: int) -> None:
    generation = Generation(number=0, ranks=[0, 1, 2])
    for rank, of_rank in ends.items():
        assert generation.note(replace(of_rank, rank=rank))
    assert generation.first_cause() == replace(ends[cause], rank=cause)


def test_a_report_on_earlier_workers_is_not_one_on_these() -> None:
    generation = Generation(number=1, ranks=[0])
    assert not generation.note(end()) and not generation.ends


def test_a_rank_that_does_not_answer_was_last_seen_somewhere() -> None:
    generation = Generation(number=0, ranks=[0, 1, 2])
    for rank, step in ((0, 200), (1, 0)):
        generation.note(Progress(generation=0, rank=rank, index=3, phase="measure", step=step, loss=3.25))
    assert generation.training(0, 3) == {"step": 200, "last_loss": 3.25}
    assert generation.training(0, 4) == generation.training(1, 3) == generation.training(2, 3) == {}


# Workers that do not start


@dataclass
class Scripted(Coordinator):
    """Starts sets of workers that do not exist: those that `broken` names fail to start, others end as `fail` says, or in `ok`."""

    broken: Callable[[Task, int], bool] = lambda task, number: False
    fail: Callable[[Task], bool] = lambda task: False
    started: list[tuple[str, str]] = field(default_factory=list)  # framework and device of every set that was started
    living: list[str] = field(default_factory=list)  # frameworks of the sets that live
    beside: list[str] = field(default_factory=list)  # of each end: the frameworks whose sets lived then

    def __post_init__(self) -> None:
        self.starts, self.state = Starts(), SimpleNamespace(members={0: member(0)}, listen=self.wait)

    def wait(self, seconds: float) -> None:
        assert seconds > 0, "a lane that waits says for how long"

    def _start(self, tasks: Sequence[Task], variables: Mapping[str, str]) -> WorkerSet:
        self.started.append((tasks[0].framework, tasks[0].device))
        return ScriptedSet(self, tasks, is_broken=self.broken(tasks[0], len(self.started)))

    def outcomes(self, *tasks: Task) -> list[str]:
        ends = dict(self.run(tasks))
        assert list(ends) == list(range(len(tasks)))
        return [end.failure.message if end.failure else "ok" for end in ends.values()]


class ScriptedSet:
    """Workers whose every job runs when it is first looked at and has ended, after 1 s of the script's own, the next time."""

    def __init__(self, launch: Scripted, tasks: Sequence[Task], *, is_broken: bool) -> None:
        self.launch, self.tasks, self.is_broken = launch, tasks, is_broken
        self.launch.living.append(tasks[0].framework)
        self.ends_at = math.inf

    def take_up(self, index: int) -> None:
        self.index, self.has_run = index, False

    def look(self) -> TaskEnd | None:
        if not self.has_run:
            self.has_run = True
            return None
        phase = "start" if self.is_broken else "measure" if self.launch.fail(self.tasks[self.index]) else None
        self.launch.beside.append(" ".join(sorted(self.launch.living)))
        failure = Failure(status=FailureStatus.FAILED, message="ImportError", rank=1, phase=phase, log="x.log")
        return TaskEnd(results=[], failure=failure if phase else None, generation=0, seconds=1.0)

    def stop(self, **_: object) -> None:
        self.launch.living.remove(self.tasks[0].framework)


def task(framework: str, device: str = "cpu", *, repeat: int = 0, **fields: object) -> Task:
    kind = {"framework": framework, "device": device, "world_size": 2, **fields}
    return Task(group=(repeat, *map(str, kind.items())), job={}, timeout_seconds=1.0, **kind)


def test_workers_are_told_once_that_a_task_ends_early_and_only_of_the_task_that_runs(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("horovod")
    (tmp_path / "logs").mkdir()
    coordinator = make_coordinator(hub, tmp_path, size=1)
    connection = connect(hub.address)
    send(connection, Hello(**vars(member(0))))
    coordinator.wait_for_members()
    tasks = [replace(task("pytorch"), world_size=1, group=(0,)) for _ in range(2)]
    asked: list[tuple[int, int]] = []

    def ends(index: int, message: Progress) -> bool:
        asked.append((index, message.step))
        return message.step >= 10

    crew = Crew(start=coordinator._start, refuse=lambda task: None, starts=Starts(), on_progress=ends)
    lane = Lane(dict(enumerate(tasks)), crew=crew)
    assert list(lane.advance()) == [] and isinstance(receive(connection), Start)
    note = lane.workers.note
    for index, step in ((0, 5), (0, 10), (0, 15)):
        note(Progress(generation=0, rank=0, index=index, phase="measure", step=step))
    note(Progress(generation=0, rank=1, index=0, phase="measure", step=20))
    note(Result(generation=0, rank=0, index=0, result={}))
    assert [index for index, _ in lane.advance()] == [0]
    note(Progress(generation=0, rank=0, index=0, phase="measure", step=20))  # late, of the task before
    note(Progress(generation=0, rank=0, index=1, phase="measure", step=10))
    assert asked == [(0, 5), (0, 10), (0, 15), (1, 20), (1, 10)]
    assert [receive(connection) for _ in range(2)] == [EndEarly(generation=0, index=index) for index in (0, 1)]
    assert not connection.poll(0.1)
    lane.stop(patience_seconds=0.0)
    connection.close()


THRICE = "pytorch workers failed to start 3 times in a row: rank 1: ImportError"
ONCE = "pytorch workers failed to start: rank 1: ImportError"


def test_one_framework_that_cannot_start_leaves_the_others_all_their_rounds() -> None:
    launch = Scripted(lambda task, number: task.framework == "pytorch")
    tasks = [task(name, repeat=repeat) for repeat in range(3) for name in ("pytorch", "tensorflow")]
    assert launch.outcomes(*tasks) == [THRICE, "ok"] * 3
    assert launch.started.count(("pytorch", "cpu")) == 3, "not again in every round"


@pytest.mark.parametrize("first", ["cuda", "cpu"])
def test_one_device_that_cannot_start_leaves_the_other(first: str) -> None:
    launch = Scripted(lambda task, number: task.device == "cuda")
    devices = [first, *({"cuda", "cpu"} - {first})] * 2
    ends = launch.outcomes(*(task("pytorch", device, repeat=number // 2) for number, device in enumerate(devices)))
    assert ends == [THRICE if device == "cuda" else "ok" for device in devices]


@pytest.mark.parametrize(
    "bad",
    [{"strategy": "server"}, {"settings": {"HOROVOD_FUSION_THRESHOLD": "0"}}, {"by_mpirun": True}, {"world_size": 4}],
)
def test_one_way_of_connecting_ranks_that_cannot_start_leaves_the_others(bad: dict[str, object]) -> None:
    broken = kind_of_workers(task("pytorch", **bad))
    launch = Scripted(lambda task, number: kind_of_workers(task) == broken)
    assert launch.outcomes(task("pytorch"), task("pytorch", **bad), task("pytorch", repeat=1)) == ["ok", THRICE, "ok"]


def test_a_framework_of_which_nothing_starts_is_tried_once_for_each_other_kind() -> None:
    launch = Scripted(lambda task, number: task.framework == "pytorch")
    settings = [{"settings": {"HOROVOD_CYCLE_TIME": str(number)}} for number in range(4)]
    ends = launch.outcomes(*(task("pytorch", **each) for each in settings), task("tensorflow"))
    assert ends == [THRICE, ONCE, ONCE, ONCE, "ok"]
    assert launch.started.count(("pytorch", "cpu")) == 3 + 3


def test_a_start_that_fails_now_and_then_is_tried_again() -> None:
    launch = Scripted(lambda task, number: number % 3 != 0)
    assert launch.outcomes(*(task("pytorch", repeat=repeat) for repeat in range(4))) == ["ok"] * 4


def test_a_launch_in_which_nothing_starts_says_so_after_the_end_of_every_task() -> None:
    launch, ends = Scripted(lambda task, number: True), []
    with pytest.raises(StartFailed, match=f"^{THRICE} \\(log: x.log\\)$"):
        for _, end in launch.run([task("pytorch"), task("tensorflow"), task("pytorch", repeat=1)]):
            ends.append(end.failure.phase)
    assert ends == ["start"] * 3
    with pytest.raises(StartFailed):
        list(launch.run([task("pytorch", repeat=2)]))
    assert len(launch.started) == 6, "what was given up is not tried by later lists of tasks"


def test_the_time_of_starts_that_failed_belongs_to_their_task() -> None:
    launch = Scripted(lambda task, number: number < 3)
    ((_, end),) = launch.run([task("pytorch")])
    assert end.failure is None and end.seconds == 3.0


# Side by side


def side_by_side(*names: str, repeats: int = 1, points: int = 2, **fields: object) -> list[Task]:
    """Tasks of frameworks whose workers live at the same time, in running order."""
    found = []
    for repeat in range(repeats):
        for point in range(points):
            for name in names:
                same = replace(task(name, repeat=repeat, **fields), job={"point": point}, beside=(repeat, "side"))
                found.append(same)
    return found


def test_the_workers_of_all_frameworks_live_while_their_tasks_run_and_each_repeat_has_new_ones() -> None:
    launch = Scripted()
    tasks = side_by_side("pytorch", "tensorflow", "jax", repeats=2)
    ends = dict(launch.run(tasks))
    assert sorted(ends) == list(range(len(tasks))) and all(end.in_turns and not end.failure for end in ends.values())
    assert launch.beside.count("jax pytorch tensorflow") >= 2 * 3, launch.beside
    assert [name for name, _ in launch.started] == ["pytorch", "tensorflow", "jax"] * 2 and launch.living == []


def test_a_failure_costs_its_own_task_and_its_frameworks_next_workers_go_on_beside_the_others() -> None:
    tasks = side_by_side("pytorch", "tensorflow", points=3)
    launch = Scripted(fail=lambda task: task.framework == "pytorch" and task.job["point"] == 1)
    ends = dict(launch.run(tasks))
    assert [index for index, end in ends.items() if end.failure] == [2]
    assert [name for name, _ in launch.started].count("pytorch") == 2 and launch.living == []


def test_a_framework_that_cannot_start_leaves_the_other_alone() -> None:
    launch = Scripted(broken=lambda task, number: task.framework == "pytorch")
    tasks = side_by_side("pytorch", "tensorflow", repeats=2)
    ends = dict(launch.run(tasks))
    assert {tasks[index].framework: end.failure and end.failure.message for index, end in ends.items()} == {
        "pytorch": THRICE, "tensorflow": None,
    }  # fmt: skip


def test_a_framework_alone_takes_no_turns() -> None:
    ends = dict(Scripted().run(side_by_side("pytorch")))
    assert not any(end.in_turns for end in ends.values())


def test_on_several_hosts_workers_live_one_set_after_the_other() -> None:
    launch = Scripted()
    launch.state.members[1] = member(1, "b")
    ends = dict(launch.run(side_by_side("pytorch", "tensorflow")))
    assert not any(end.in_turns for end in ends.values()) and set(launch.beside) == {"pytorch", "tensorflow"}


def test_the_tasks_that_run_are_the_first_of_each_group_that_lives() -> None:
    tasks = [*side_by_side("pytorch", "tensorflow", repeats=2), task("pytorch", "cuda")]
    expected = [
        (set(), [0, 1]),
        ({0}, [1, 2]),
        ({0, 1, 3}, [2]),
        ({0, 1, 2, 3}, [4, 5]),
        (set(range(8)), [8]),
        (set(range(9)), []),
    ]
    assert [running_tasks(tasks, ended) for ended, _ in expected] == [running for _, running in expected]


# Joining


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(is_single_host=True, backlog=2)
    yield hub
    hub.close()


def make_coordinator(hub: Hub, path: Path, *, size: int = 2) -> Coordinator:
    return Coordinator(hub, Context(launcher="hvbench", rank=0, size=size, is_single_host=True), run_path=path)


def hello(rank: int) -> Hello:
    return Hello(**vars(member(rank)))


def test_every_rank_that_says_hello_is_a_member(hub: Hub, tmp_path: Path) -> None:
    coordinator = make_coordinator(hub, tmp_path)
    connections = [connect(hub.address) for _ in range(2)]
    for rank, connection in enumerate(connections):
        send(connection, hello(rank))
    coordinator.wait_for_members()
    assert coordinator.members == {0: member(0), 1: member(1)}
    for connection in connections:
        connection.close()


def test_ranks_that_do_not_join_are_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 1.0)
    coordinator = make_coordinator(hub, tmp_path, size=4)
    with connect(hub.address) as connection:
        send(connection, hello(1))
        with pytest.raises(LaunchError, match=r"^rank 0, 2, 3 did not join within 1 s$"):
            coordinator.wait_for_members()


def test_numbers_of_generations_go_on_after_those_of_an_earlier_sweep(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert next(make_coordinator(hub, tmp_path).numbers) == 0
    for name in ("generation0007-rank0.log", "generation0007-rank1.log", "generation0003-rank0.log", "notes.txt"):
        (tmp_path / "logs" / name).touch()
    assert next(make_coordinator(hub, tmp_path).numbers) == 8
