"""What this process's control groups leave it: cores and bytes, the smallest limit from its own group up to the root.

Linux: `/proc/self/cgroup` names the group in each hierarchy (version 1, version 2, or both), `/proc/self/mountinfo` where
the hierarchies are mounted and, in a container, which part of them. A limit of any group above binds as one of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvbench.records.reading import read_text

UNLIMITED_BYTES = 2**60  # version 1 writes a number near 2^63 for "no limit"
NUMBER = re.compile(r"\d{1,19}", re.ASCII)
RANGES = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the control groups allow; None without a limit."""

    cpu_quota: float | None  # cores' worth of time, maybe a fraction
    cpuset_cores: int | None  # cores that may be used at all
    memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Where a hierarchy can be read."""

    controllers: frozenset[str]  # of version 1; empty: version 2, which has all
    root: str  # the group that the mount point shows
    point: str


def read_limits(root: Path = Path("/")) -> Limits:
    """The limits of this process's control groups; `root` holds the `proc` and `sys` that are read."""
    folders = {name: list(group_folders(name, root)) for name in ("", "cpu", "cpuset", "memory")}

    def smallest(
        controller: str, read: Callable[[Path], float | None], read_v1: Callable[[Path], float | None]
    ) -> float | None:
        found = [read(folder) for folder in folders[""]] + [read_v1(folder) for folder in folders[controller]]
        return min((limit for limit in found if limit), default=None)

    return Limits(
        cpu_quota=smallest("cpu", read_quota, read_quota_v1),
        cpuset_cores=smallest("cpuset", read_cores, read_cores_v1),
        memory_bytes=smallest("memory", read_bytes, read_bytes_v1),
    )


def group_folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's group and of all above it, as far as they are mounted; `controller` "" means version 2."""
    path = group_path(controller, root)
    for mount in find_mounts(root):
        if controller not in (mount.controllers or {""}):
            continue
        # A mount that shows another part of the hierarchy than the path names is one of a namespace: its own group is on top.
        inner = posixpath.relpath(path, mount.root) if is_below(path, mount.root) else "."
        while True:
            yield root / mount.point.lstrip("/") / inner
            if inner in (".", ""):
                break
            inner = posixpath.dirname(inner) or "."


def group_path(controller: str, root: Path) -> str:
    """The group's path in a controller's hierarchy; the root of it where that is not said."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and path.startswith("/"):
            return path
    return "/"


def is_below(path: str, root: str) -> bool:
    """Whether a group's path lies within what a mount shows, as both names stand."""
    return ".." not in path.split("/") and (root == "/" or path == root or path.startswith(f"{root}/"))


def find_mounts(root: Path) -> list[Mount]:
    """Where control groups are mounted: as the kernel says, or where they usually are."""
    found = []
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *options) = before.split(), (after.split() or [""])
        if kind in ("cgroup", "cgroup2") and len(fields) >= 5:
            controllers = frozenset(options[-1].split(",")) if kind == "cgroup" and options else frozenset()
            found.append(Mount(controllers=controllers, root=unescape(fields[3]), point=unescape(fields[4])))
    usual = [
        Mount(controllers=frozenset({name}), root="/", point=f"/sys/fs/cgroup/{name}")
        for name in ("cpu", "cpuset", "memory")
    ]
    unified = [Mount(controllers=frozenset(), root="/", point=f"/sys/fs/cgroup{part}") for part in ("", "/unified")]
    return found or [*usual, *unified]


def unescape(text: str) -> str:
    r"""A path of mountinfo, where `\040` stands for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def read_quota(folder: Path) -> float | None:
    """Cores of a group of version 2: `cpu.max` holds "QUOTA PERIOD", in microseconds, or "max PERIOD"."""
    quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
    return divide(quota, period or "100000")


def read_quota_v1(folder: Path) -> float | None:
    """Cores of a group of version 1; its quota is -1 without a limit."""
    return divide(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))


def read_cores(folder: Path) -> int | None:
    """Cores of the set of a group of version 2."""
    return count_ranges(read_text(folder / "cpuset.cpus.effective") or read_text(folder / "cpuset.cpus"))


def read_cores_v1(folder: Path) -> int | None:
    """Cores of the set of a group of version 1."""
    return count_ranges(read_text(folder / "cpuset.effective_cpus") or read_text(folder / "cpuset.cpus"))


def read_bytes(folder: Path) -> int | None:
    """Bytes that a group of version 2 may have; "max" without a limit."""
    return parse_bytes(read_text(folder / "memory.max"))


def read_bytes_v1(folder: Path) -> int | None:
    """Bytes that a group of version 1 may have, by its own limit or by what it says of those above."""
    above = re.search(r"^hierarchical_memory_limit (\d+)$", read_text(folder / "memory.stat") or "", re.MULTILINE)
    found = (parse_bytes(read_text(folder / "memory.limit_in_bytes")), parse_bytes(above[1] if above else None))
    return min((limit for limit in found if limit), default=None)


def divide(quota: str | None, period: str | None) -> float | None:
    """QUOTA / PERIOD, where both are whole numbers above 0."""
    if not all(text and NUMBER.fullmatch(text) and int(text) for text in (quota, period)):
        return None
    return int(quota) / int(period)


def parse_bytes(text: str | None) -> int | None:
    """A limit in bytes; None for "max" and for what is larger than any memory."""
    return int(text) if text and NUMBER.fullmatch(text) and int(text) < UNLIMITED_BYTES else None


def count_ranges(text: str | None) -> int | None:
    """Cores in a list such as `0-3,8`; None where it is empty or no such list."""
    if not text or not RANGES.fullmatch(text):
        return None
    ends = ((first, last or first) for first, _, last in (each.partition("-") for each in text.split(",")))
    return sum(max(0, int(last) - int(first) + 1) for first, last in ends)
