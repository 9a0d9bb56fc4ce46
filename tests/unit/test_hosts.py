"""Launching on several hosts: what -H means, what goes over ssh, and which point needs whom to start its workers."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from hvbench.errors import LaunchError, UsageError
from hvbench.launch.channel import Address
from hvbench.launch.host_list import Here, parse_hosts
from hvbench.launch.hosts import gloo_interface, start_remote_agent
from hvbench.launch.link import VARIABLE, shape_link
from hvbench.launch.messages import Role, Start, WorkerDescription, read_message
from hvbench.launch.placement import Member, threads_per_worker, unite_names, worker_settings
from hvbench.launch.servers import COUNT, SECRET, add_servers
from hvbench.launch.session import resolve_context
from hvbench.launch.starting import join_ranks
from hvbench.launch.task import Task
from hvbench.plan.jobs import launch_facts, worker_group
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from tests import patience

FAKE_SSH = """#!/bin/sh
# Stands for the network between two hosts, not for what runs on them: it keeps what it was told.
printf '%s\\n' "$@" > "$SEEN.arguments"
cat > "$SEEN.input"
"""


# -H

HERE = Here(names=frozenset({"me", "me.example.org"}), addresses=frozenset({"127.0.0.1", "::1", "10.0.0.1", "fe80::1"}))
ADDRESSES = {
    "a": ["10.0.0.2"], "a.example.org": ["10.0.0.2"], "b": ["10.0.0.3", "fd00::3"], "b6": ["fd00:0::3"], "vm": ["127.0.1.1"],
    "outer": ["10.0.0.1"], "c": ["10.0.0.4"],
}  # fmt: skip


def parse(text: str) -> list[str]:
    return parse_hosts(text, here=HERE, find=lambda name: ADDRESSES.get(name, ()))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a:2,b.example:1, c-3:1", ["a", "a", "b.example", "c-3"]),
        ("gpu_node_1:1", ["gpu_node_1"]),
        ("gpu_node_1:2,_x:1", ["gpu_node_1", "gpu_node_1", "_x"]),
        ("Node-7.Example.ORG.:1,b:1", ["Node-7.Example.ORG.", "b"]),
        ("a,b:2,c", ["a", "b", "b", "c"]),
        ("me,root@b:2", ["me", "root@b", "root@b"]),
        ("10.0.0.1:1,10.0.0.3:1", ["10.0.0.1", "10.0.0.3"]),
        ("[::1]:1,[fd00::3]:2", ["::1", "fd00::3", "fd00::3"]),
        ("me:1,[fe80::2%eth0]", ["me", "fe80::2%eth0"]),
        ("me:1,ann@[fd00::3]:1", ["me", "ann@fd00::3"]),
        ("1:1,2:1", ["1", "2"]),
    ],
)
def test_hosts_become_ranks_in_order(text: str, hosts: list[str]) -> None:
    assert parse(text) == hosts


@pytest.mark.parametrize(
    "text",
    [
        "localhost:1,127.0.0.1:1", "127.0.0.1:1,localhost:1", "localhost:1,[::1]:1", "localhost:1,127.8.9.1:1", "localhost,LOCALHOST.",
        "me:1,localhost:1", "localhost:1,me:1", "me:1,me.example.org:1", "ME:1,Me.Example.Org.:1", "me:1,10.0.0.1:1", "me:1,outer:1",
        "me:1,vm:1", "me:1,[fe80::1%eth0]:1", "localhost:1,[::ffff:127.0.0.1]:1", "localhost:1,0.0.0.0:1", "localhost:1,ip6-localhost:1",
        "localhost:1,localhost.localdomain:1", "me:1,ann@localhost:1", "first:1,localhost:1",
    ],
)  # fmt: skip
def test_this_machine_is_one_host_under_all_its_names(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = parse(text)
    assert first == second == bare(text.split(",")[0])


def bare(word: str) -> str:
    return word.removesuffix(":1").strip("[]")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("me:1,a:1,a.example.org:1", ["me", "a", "a"]),
        ("me:1,b:1,b6:1,10.0.0.3:1", ["me", "b", "b", "b"]),
        ("me:1,A:1,a.:1", ["me", "A", "A"]),
        ("me:1,root@a:1,a:1", ["me", "root@a", "root@a"]),
        ("me:1,unknown1:1,unknown2:1", ["me", "unknown1", "unknown2"]),  # names that only ssh knows
        ("localhost:1,a:1,127.0.0.1:2", ["localhost", "a", "localhost", "localhost"]),
    ],
)
def test_another_machine_is_one_host_under_all_its_names(text: str, hosts: list[str]) -> None:
    assert parse(text) == hosts


def test_this_machine_knows_itself() -> None:
    for name in (socket.gethostname(), "127.0.0.1", "localhost"):
        assert parse_hosts(f"first:1,{name}:1") == ["first", "first"]


@pytest.mark.parametrize(
    "text",
    [
        "", "a:0", "a:-1", "a:1,,b:1", "a:1,", "-oProxyCommand=x:1", "a b:1", "a:1;rm:1", "a:1:2", "a:x", "a:12345", "user@-o:1",
        "@a:1", "a@b@c:1", "[::1:1", "::1:1", "[nonsense]:1", "[1.2]:1", "a/b:1", "$(x):1", "\u00e9:1", ".a:1", "a:1\n",
    ],
)  # fmt: skip
def test_what_is_no_list_of_hosts_is_refused_and_told_what_is(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text.replace("\n", "\nb"))
    assert str(refused.value).startswith("-H ") and "IPv6 in brackets" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_host_is_not_listed_twice() -> None:
    with pytest.raises(UsageError, match="-H .*: a is listed twice"):
        parse("a:1,b:1,a:2")


def test_ranks_of_one_machine_share_its_cores_whatever_the_launcher_calls_it() -> None:
    def member(rank: int, host: str, machine: str) -> Member:
        return Member(rank=rank, host=host, pid=1, cores=[0, 1, 2, 3], cgroup_cpu_quota=None, machine=machine)

    members = {
        1: member(1, "127.0.0.1", "m"),
        0: member(0, "localhost", "m"),
        2: member(2, "b", "n"),
        3: member(3, "c", ""),
    }
    united = unite_names(members)
    assert [united[rank].host for rank in range(4)] == ["localhost", "localhost", "b", "c"]
    assert [threads_per_worker(list(united.values()), host=host) for host in ("localhost", "b", "c")] == [2, 4, 4]


def test_a_launch_on_hosts_has_their_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HVBENCH_RANK", "HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HVBENCH_HOSTS", "a:2,b:2")
    monkeypatch.setenv("HOROVOD_HOSTNAME", "another")
    context = resolve_context(None)
    assert (context.size, context.hosts, context.is_single_host) == (4, ("a", "a", "b", "b"), False)
    assert os.environ["HOROVOD_HOSTNAME"] == "a", "the name by which this host is one of them"
    assert resolve_context(2).is_single_host and resolve_context(3).hosts == ("a", "a", "b")
    with pytest.raises(UsageError, match="between 1 and 4"):
        resolve_context(5)


def test_the_secret_goes_over_standard_input_and_nothing_of_it_is_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh with a space"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("HVBENCH_SSH", f"'{ssh}' -p 2222")
    monkeypatch.setenv("HVBENCH_CACHE", "/a path/it's")
    monkeypatch.setenv("HVBENCH_RANK", "7")
    monkeypatch.setenv("HOROVOD_HOSTNAME", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.chdir(tmp_path)
    address = Address(hosts=["10.0.0.1"], port=4711, secret="s3cret")
    assert start_remote_agent(address.to_json(), host="second", rank=3, size=4).wait(timeout=patience.SECONDS) == 0
    words = (tmp_path / "seen.arguments").read_text().splitlines()
    assert words[:3] == ["-p", "2222", "second"]
    assert words[3].startswith(f"cd {tmp_path} && exec env ") and words[3].endswith(
        f"{sys.executable} -P -m hvbench.launch"
    )
    for setting in ("HVBENCH_RANK=3", "HVBENCH_SIZE=4", "HOROVOD_HOSTNAME=second", "HVBENCH_COORDINATOR=-"):
        assert f" {setting} " in words[3]
    assert "HVBENCH_CACHE='/a path/it'\"'\"'s'" in words[3]
    assert "s3cret" not in words[3] and "AWS" not in words[3]
    assert Address.from_json((tmp_path / "seen.input").read_text()) == address


def test_no_ssh_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVBENCH_SSH", "/no/such/ssh")
    with pytest.raises(LaunchError, match="rank 1 on b: /no/such/ssh cannot be run"):
        start_remote_agent("{}", host="b", rank=1, size=2)


def test_the_interface_is_found_where_nobody_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOROVOD_GLOO_IFACE", raising=False)
    assert gloo_interface({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1"}) == {"HOROVOD_GLOO_IFACE": "lo"}
    assert gloo_interface({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_IFACE": "eth7"}) == {}
    assert gloo_interface({}) == {}
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "eth7")
    assert gloo_interface({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1"}) == {}


def test_a_link_is_left_alone_unless_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    shape_link(None)
    with pytest.raises(OSError, match=VARIABLE):
        shape_link(10**9)


# Who starts a point's workers


def test_points_that_a_launch_tells_apart_do_not_share_workers() -> None:
    changes = [
        {}, {"strategy": "native"}, {"controller": "mpi"}, {"fusion_threshold_bytes": 0}, {"cycle_time_seconds": 1e-3},
        {"autotune": True}, {"link_bits_per_second": 10**8},
    ]  # fmt: skip
    assert len({worker_group(Point(world_size=2, **change)) for change in changes}) == len(changes)
    assert worker_group(Point(compression="bf16", gradient_predivide=2.0)) == worker_group(Point())


def test_mpi_starts_what_needs_it() -> None:
    assert not launch_facts(Point(world_size=2))["by_mpirun"]
    mpi = launch_facts(Point(world_size=2, controller="mpi"))
    assert (mpi["by_mpirun"], mpi["servers"]) == (True, 0)
    served = launch_facts(Point(world_size=2, strategy="parameter_server_async"))
    assert (served["by_mpirun"], served["servers"], served["strategy"]) == (False, 1, "parameter_server_async")
    assert launch_facts(Point(world_size=1, strategy="parameter_server"))["servers"] == 0


def test_knobs_become_horovods_variables() -> None:
    point = Point(world_size=2, fusion_threshold_bytes=134_217_728, cycle_time_seconds=2.5e-3, autotune=True)
    assert launch_facts(point)["settings"] == {
        "HOROVOD_FUSION_THRESHOLD": "134217728", "HOROVOD_CYCLE_TIME": "2.5", "HOROVOD_AUTOTUNE": "1",
    }  # fmt: skip
    assert launch_facts(Point(world_size=2, fusion_threshold_bytes=0))["settings"] == {"HOROVOD_FUSION_THRESHOLD": "0"}
    assert launch_facts(Point(world_size=2))["settings"] == {}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"world_size": 1, "strategy": "native"}, "one rank has nothing to all-reduce"),
        ({"world_size": 1, "autotune": True}, "one rank has nothing to all-reduce: autotune changes nothing"),
        (
            {"strategy": "native", "compression": "fp16"},
            "compression: a choice of Horovod's, and the strategy is native",
        ),
        ({"reduction": "adasum"}, "needs controller mpi"),
        ({"reduction": "adasum", "controller": "mpi", "world_size": 3}, "2, 4, 8"),
        ({"reduction": "adasum", "controller": "mpi", "gradient_predivide": 2.0}, "adasum is no sum"),
        ({"compression": "bf16", "gradient_predivide": 2.0}, "bf16 sums outside Horovod"),
        ({"link_bits_per_second": 10**8}, "no link may be shaped here"),
    ],
)
def test_what_makes_no_sense_is_skipped_with_its_reason(
    fields: dict, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    point = Point(**({"world_size": 2} | fields))
    assert reason in reason_to_skip(point, world_size=4)


@pytest.mark.parametrize(
    "fields",
    [
        {"strategy": "native"}, {"strategy": "local"}, {"strategy": "parameter_server"}, {"compression": "bf16"},
        {"reduction": "adasum", "controller": "mpi", "compression": "fp16"}, {"gradient_predivide": 2.0},
    ],
)  # fmt: skip
def test_what_makes_sense_is_run(fields: dict) -> None:
    assert reason_to_skip(Point(world_size=2, **fields), world_size=2) is None


def make_orders() -> list[Start]:
    """Of two ranks."""
    shared = {"framework": "pytorch", "world_size": 2, "host": "a", "threads": 1, "device": "cpu", "jobs": []}
    return [
        Start(
            generation=0,
            logs="logs",
            token="token",
            environment={"A": str(rank)},
            workers=[WorkerDescription(rank=rank, local_rank=rank, **shared)],
        )
        for rank in range(2)
    ]


def test_one_message_starts_all_ranks_of_mpi() -> None:
    joined = join_ranks(make_orders())
    assert joined.by_mpirun and joined.environment == {"A": "0"}
    assert [worker.rank for worker in joined.workers] == [0, 1]
    assert read_message(json.loads(json.dumps(joined.to_json()))) == joined


def test_servers_are_dealt_out_to_the_ranks_hosts_with_one_secret_for_all() -> None:
    first, second = add_servers(make_orders(), servers=3)
    assert [(worker.role, worker.rank) for worker in first.workers] == [
        (Role.RANK, 0),
        (Role.SERVER, 2),
        (Role.SERVER, 4),
    ]
    assert [(worker.role, worker.rank) for worker in second.workers] == [(Role.RANK, 1), (Role.SERVER, 3)]
    assert first.environment[COUNT] == "3" and first.environment[SECRET] == second.environment[SECRET]
    assert (first.environment["A"], second.environment["A"]) == ("0", "1")
    assert add_servers(make_orders(), servers=3)[0].environment[SECRET] != first.environment[SECRET]
    assert read_message(json.loads(json.dumps(second.to_json()))) == second


def test_ranks_of_mpi_are_told_their_place_by_mpirun() -> None:
    settings = worker_settings(None, address="10.0.0.1", port=1, threads=3, by_mpirun=True)
    assert settings == {"HOROVOD_CONTROLLER": "mpi", "HOROVOD_CPU_OPERATIONS": "mpi", "OMP_NUM_THREADS": "3"}


def test_a_task_needs_no_mpi_unless_it_says_so() -> None:
    task = Task(group=(), framework="pytorch", world_size=2, device="cpu", job={}, timeout_seconds=1.0)
    assert (task.by_mpirun, task.servers, task.strategy, task.link_bits_per_second) == (False, 0, "horovod", None)
