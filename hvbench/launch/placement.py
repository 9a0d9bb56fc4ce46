"""The place of each rank: Horovod's slots, threads per worker, and the environment that tells a worker both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvbench.records.environment import limit_cores


@dataclass(frozen=True, kw_only=True)
class Member:
    """An agent that takes part."""

    rank: int
    host: str
    pid: int
    cores: list[int]
    cgroup_cpu_quota: float | None
    machine: str = ""  # equal for ranks that share a kernel and its network, whatever their host is called; "": unknown


def unite_names(members: Mapping[int, Member]) -> dict[int, Member]:
    """The members, by rank, with one host name for those of one machine: a launcher may know it by several."""
    names: dict[str, str] = {}
    united = {}
    for rank in sorted(members):
        member = members[rank]
        name = names.setdefault(member.machine, member.host) if member.machine else member.host
        united[rank] = replace(member, host=name)
    return united


def assign_slots(members: Sequence[Member]) -> list[Any]:
    """Horovod's view of the members: rank, local rank and cross rank of each, in rank order."""
    from horovod.runner.common.util.hosts import SlotInfo

    hosts = list(dict.fromkeys(member.host for member in members))
    locals_by_host = {host: [member.rank for member in members if member.host == host] for host in hosts}
    slots = []
    for member in members:
        local_rank = locals_by_host[member.host].index(member.rank)
        crossing = [host for host in hosts if len(locals_by_host[host]) > local_rank]
        slots.append(
            SlotInfo(
                hostname=member.host,
                rank=member.rank,
                local_rank=local_rank,
                cross_rank=crossing.index(member.host),
                size=len(members),
                local_size=len(locals_by_host[member.host]),
                cross_size=len(crossing),
            )
        )
    return slots


def threads_per_worker(members: Sequence[Member], *, host: str) -> int:
    """Cores that the host gives its ranks (affinity and cgroup quota) divided by the ranks on it, at least 1.

    `members` are all ranks of the launch, those that train a point and those that do not: a point on fewer ranks then
    has the same threads per rank, and scaling efficiency compares like with like.
    """
    local = [member for member in members if member.host == host]
    cores = len({core for member in local for core in member.cores})
    return max(1, limit_cores(cores, quota=local[0].cgroup_cpu_quota) // len(local))


def worker_settings(slot: Any, *, address: str, port: int, threads: int, by_mpirun: bool = False) -> dict[str, str]:
    """The environment that tells a worker's Horovod its rank and where the other ranks are, and its libraries their threads."""
    if by_mpirun:  # which tells each rank its place
        return {"HOROVOD_CONTROLLER": "mpi", "HOROVOD_CPU_OPERATIONS": "mpi", "OMP_NUM_THREADS": str(threads)}
    settings = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_HOSTNAME": slot.hostname,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        "OMP_NUM_THREADS": str(threads),
    }
    if slot.local_size == slot.size and not os.environ.get("HOROVOD_GLOO_IFACE") and Path("/sys/class/net/lo").exists():
        settings["HOROVOD_GLOO_IFACE"] = "lo"  # one host: needs no name that resolves
    return settings
