"""What control groups leave: the smallest limit from the process's group to the root, in every layout that kernels show.

Each case is a tree of files as Linux writes them, and what they mean by hand.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hvbench.launch.placement import Member, threads_per_worker
from hvbench.records import environment
from hvbench.records.environment import cgroup_cpu_quota, cgroup_memory_limit_bytes, usable_cores, usable_memory_bytes
from hvbench.records.limits import Limits, read_limits

GIB = 2**30
NO_LIMIT_V1 = str(2**63 - 4096)

MOUNT_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
MOUNTS_V1 = "\n".join(
    f"3{number} 23 0:3{number} {{root}} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
    for number, name in enumerate(("cpu,cpuacct", "cpuset", "memory"))
)
CGROUP_V1 = "4:memory:{path}\n3:cpuset:{path}\n2:cpu,cpuacct:{path}\n1:name=systemd:{path}"


def make_tree(root: Path, *, cgroup: str | None, mountinfo: str | None, groups: dict[str, str]) -> Path:
    """A file tree with `proc/self/…` and, below `sys/fs/cgroup`, `groups` (path -> content)."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    for name, content in (("cgroup", cgroup), ("mountinfo", mountinfo)):
        if content is not None:
            (proc / name).write_text(content + "\n")
    for name, content in groups.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def v2(path: str, groups: dict[str, str], mount: str = MOUNT_V2) -> dict:
    return {"cgroup": f"0::{path}", "mountinfo": mount, "groups": groups}


def v1(path: str, groups: dict[str, str], root: str = "/") -> dict:
    return {"cgroup": CGROUP_V1.format(path=path), "mountinfo": MOUNTS_V1.format(root=root), "groups": groups}


# name -> (tree, cores by quota, cores by set, bytes)
CASES = {
    "v2, nothing": (v2("/", {}), None, None, None),
    "v2, max": (v2("/a", {"a/cpu.max": "max 100000", "a/memory.max": "max"}), None, None, None),
    "v2, own group": (v2("/a", {"a/cpu.max": "100000 100000", "a/memory.max": str(GIB)}), 1.0, None, GIB),
    "v2, parent": (
        v2("/a/b/c", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "400000 100000"}),
        1.0, None, None,
    ),
    "v2, memory of a parent": (v2("/a/b", {"a/memory.max": str(GIB), "a/b/memory.max": str(4 * GIB)}), None, None, GIB),
    "v2, memory of the own group": (v2("/a/b", {"a/memory.max": str(4 * GIB), "a/b/memory.max": str(GIB)}), None, None, GIB),
    "v2, root of a namespace": (v2("/", {"cpu.max": "150000 100000", "memory.max": str(GIB)}), 1.5, None, GIB),
    "v2, period of its own": (v2("/a", {"a/cpu.max": "25000 50000"}), 0.5, None, None),
    "v2, no period": (v2("/a", {"a/cpu.max": "200000"}), 2.0, None, None),
    "v2, set": (v2("/a/b", {"a/cpuset.cpus.effective": "0-3,8", "a/b/cpuset.cpus.effective": "2"}), None, 1, None),
    "v2, set that is not enabled below": (v2("/a/b", {"a/cpuset.cpus.effective": "0-1", "a/b/cpuset.cpus": ""}), None, 2, None),
    "v2, others' groups": (v2("/a", {"b/cpu.max": "100000 100000", "a/b/cpu.max": "100000 100000"}), None, None, None),
    "v2, container that shows one group": (
        v2("/docker/x", {"cpu.max": "100000 100000"}, MOUNT_V2.replace(" / /sys", " /docker/x /sys")), 1.0, None, None,
    ),
    "v2, group within that container": (
        v2("/docker/x/in", {"in/cpu.max": "100000 100000", "cpu.max": "200000 100000"}, MOUNT_V2.replace(" / /sys", " /docker/x /sys")),
        1.0, None, None,
    ),
    "v2, path outside of the namespace": (v2("/../other", {"cpu.max": "100000 100000"}), 1.0, None, None),
    "v2, group that is not mounted": (v2("/gone/deep", {"cpu.max": "300000 100000"}), 3.0, None, None),
    "v2, mounted elsewhere": (
        v2("/a", {"my groups/a/memory.max": str(GIB)}, MOUNT_V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")),
        None, None, GIB,
    ),
    "v2, garbage": (v2("/a", {"a/cpu.max": "fast", "a/memory.max": "-5", "a/cpuset.cpus.effective": "all"}), None, None, None),
    "v2, quota of 0": (v2("/a", {"a/cpu.max": "0 100000", "a/memory.max": str(2**62)}), None, None, None),
    "v2, colon in a name": (v2("/a:b", {"a:b/cpu.max": "100000 100000"}), 1.0, None, None),
    "v1, no limit": (
        v1("/a", {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": NO_LIMIT_V1, "memory/a/memory.stat": f"rss 5\nhierarchical_memory_limit {NO_LIMIT_V1}",
        }),
        None, None, None,
    ),
    "v1, own group": (
        v1("/a", {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": str(GIB), "cpuset/a/cpuset.cpus": "0,2",
        }),
        0.5, 2, GIB,
    ),
    "v1, parent": (
        v1("/a/b", {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "100000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": str(GIB), "memory/a/b/memory.limit_in_bytes": NO_LIMIT_V1,
            "cpuset/cpuset.cpus": "0-7", "cpuset/a/cpuset.effective_cpus": "0-1", "cpuset/a/b/cpuset.cpus": "",
        }),
        1.0, 2, GIB,
    ),
    "v1, limit above what is mounted": (
        v1("/", {"memory/memory.limit_in_bytes": NO_LIMIT_V1, "memory/memory.stat": f"hierarchical_memory_limit {GIB}"}),
        None, None, GIB,
    ),
    "v1, container that shows its own group": (
        v1("/docker/x", {
            "cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": str(GIB),
        }, root="/docker/x"),
        1.5, None, GIB,
    ),
    "v1, group within that container": (
        v1("/docker/x/in", {"memory/in/memory.limit_in_bytes": str(GIB), "memory/memory.limit_in_bytes": str(2 * GIB)}, root="/docker/x"),
        None, None, GIB,
    ),
    "hybrid, limits in v1": (
        {
            "cgroup": "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/",
            "mountinfo": MOUNTS_V1.format(root="/") + "\n" + MOUNT_V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "groups": {
                "memory/a/memory.limit_in_bytes": str(GIB), "memory/a/b/memory.limit_in_bytes": str(2 * GIB),
                "cpu,cpuacct/c/cpu.cfs_quota_us": "100000", "cpu,cpuacct/c/cpu.cfs_period_us": "50000",
                "unified/cgroup.controllers": "",
            },
        },
        2.0, None, GIB,
    ),
    "hybrid, one limit in each": (
        {
            "cgroup": "2:cpu,cpuacct:/c\n0::/u",
            "mountinfo": MOUNTS_V1.format(root="/") + "\n" + MOUNT_V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "groups": {
                "cpu,cpuacct/c/cpu.cfs_quota_us": "300000", "cpu,cpuacct/c/cpu.cfs_period_us": "100000",
                "unified/u/cpu.max": "200000 100000", "unified/u/memory.max": str(GIB),
            },
        },
        2.0, None, GIB,
    ),
    "no files at all": ({"cgroup": None, "mountinfo": None, "groups": {}}, None, None, None),
    "nothing but the limits, v2": ({"cgroup": None, "mountinfo": None, "groups": {"cpu.max": "200000 100000"}}, 2.0, None, None),
    "nothing but the limits, v1": (
        {"cgroup": None, "mountinfo": None, "groups": {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}},
        2.0, None, None,
    ),
    "group without mounts": ({"cgroup": "0::/a/b", "mountinfo": "", "groups": {"a/cpu.max": "100000 100000"}}, 1.0, None, None),
    "broken lines": (
        {"cgroup": "nonsense\n\n0:\n0::relative\n0::/a", "mountinfo": "x - cgroup2\n\n" + MOUNT_V2, "groups": {"a/cpu.max": "100000 100000"}},
        1.0, None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tree", "quota", "cores", "memory"), CASES.values(), ids=CASES)
def test_the_smallest_limit_on_the_way_to_the_root_binds(
    tree: dict, quota: float | None, cores: int | None, memory: int | None, tmp_path: Path
) -> None:
    assert read_limits(make_tree(tmp_path, **tree)) == Limits(cpu_quota=quota, cpuset_cores=cores, memory_bytes=memory)


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment, "os", SimpleNamespace(sched_getaffinity=lambda _: set(range(16)), sysconf=lambda _: 2**18)
    )


@pytest.mark.parametrize(
    ("tree", "usable"),
    [
        (v2("/a/b", {"a/cpu.max": "100000 100000"}), 1),
        (v2("/a", {"a/cpu.max": "350000 100000"}), 3),
        (v2("/a", {"a/cpu.max": "5000 100000"}), 1),
        (v2("/a", {"a/cpuset.cpus.effective": "0-1", "a/cpu.max": "300000 100000"}), 2),
        (v2("/a", {"a/cpu.max": "9900000 100000"}), 16),
        (v2("/a", {}), 16),
    ],
)
def test_cores_and_threads_follow_the_limit(tree: dict, usable: int, tmp_path: Path, sixteen_cores: None) -> None:
    root = make_tree(tmp_path, **tree)
    assert usable_cores(root) == usable
    members = [
        Member(rank=rank, host="h", pid=1, cores=list(range(16)), cgroup_cpu_quota=cgroup_cpu_quota(root))
        for rank in range(2)
    ]
    assert threads_per_worker(members, host="h") == max(1, usable // 2)


def test_memory_follows_the_limit(tmp_path: Path) -> None:
    root = make_tree(tmp_path, **v2("/a/b", {"a/memory.max": str(GIB // 2)}))
    assert cgroup_memory_limit_bytes(root) == usable_memory_bytes(root) == GIB // 2
