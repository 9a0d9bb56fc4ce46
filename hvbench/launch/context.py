"""Who launched this process, and which rank it is: read from the environment alone.

A shell may hold what an earlier launch left in it, or an allocation without a launch. So a launch is believed only where
all variables that its launcher sets are there, are numbers where they count, and speak of two ranks at least.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvbench.spec.place import PLACE

Launcher = Literal["horovodrun-gloo", "mpi", "hvbench", "srun", "none"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """This process's place in a launch; `launcher` is "none" when nothing launched it."""

    launcher: Launcher
    rank: int
    size: int
    is_single_host: bool
    hosts: tuple[str, ...] = ()  # of each rank, where hvbench launches on several by itself

    @property
    def is_first(self) -> bool:
        """Rank 0 coordinates, and alone prints."""
        return self.rank == 0


@dataclass(frozen=True, kw_only=True)
class Signs:
    """The variables by which a launcher tells a process its place; without one of `rank`, `size`, `others` it is another's."""

    launcher: Launcher
    rank: str
    size: str
    others: tuple[str, ...] = ()
    local_size: str | None = None  # ranks on this host; not set: there may be several hosts
    hosts: str | None = None  # number of hosts, from a launcher that says this instead


# In the order in which they are believed: hvbench starts ranks within others' launches, horovodrun within a scheduler's.
LAUNCHERS = (
    Signs(
        launcher="hvbench",
        rank="HVBENCH_RANK",
        size="HVBENCH_SIZE",
        others=("HVBENCH_COORDINATOR",),
        local_size="HVBENCH_SIZE",
    ),
    Signs(
        launcher="horovodrun-gloo",
        rank="HOROVOD_RANK",
        size="HOROVOD_SIZE",
        others=("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
        local_size="HOROVOD_LOCAL_SIZE",
    ),
    Signs(
        launcher="mpi",  # Open MPI's mpirun, and horovodrun --mpi
        rank="OMPI_COMM_WORLD_RANK",
        size="OMPI_COMM_WORLD_SIZE",
        local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    Signs(
        launcher="mpi", rank="MV2_COMM_WORLD_RANK", size="MV2_COMM_WORLD_SIZE", local_size="MV2_COMM_WORLD_LOCAL_SIZE"
    ),
    Signs(
        launcher="mpi", rank="PMI_RANK", size="PMI_SIZE", local_size="MPI_LOCALNRANKS"
    ),  # MPICH, Intel, srun --mpi=pmi2
    Signs(
        launcher="mpi",  # srun --mpi=pmix
        rank="PMIX_RANK",
        size="SLURM_STEP_NUM_TASKS",
        others=("PMIX_NAMESPACE",),
        hosts="SLURM_STEP_NUM_NODES",
    ),
    Signs(
        launcher="srun",  # without an MPI: tasks that know their places and cannot find each other
        rank="SLURM_PROCID",
        size="SLURM_STEP_NUM_TASKS",
        others=("SLURM_STEP_ID",),
        hosts="SLURM_STEP_NUM_NODES",
    ),
)
NUMBER = re.compile(r"\d{1,7}", re.ASCII)

# What launchers tell a process about its place. A worker must not take its agent's place for its own, and an MPI library
# that finds a part of this calls a launcher that is not there, and aborts.
LEFT_BY_LAUNCHERS = re.compile(
    r"(OMPI|PMIX|PMI2?|ORTE|PRTE|HYD[RI]A?|MV2_COMM_WORLD)_\w+|MPI_LOCAL(NRANKS|RANKID)"
    rf"|HVBENCH_(RANK|SIZE|COORDINATOR)|{PLACE.pattern}"
)


def detect_context(environment: Mapping[str, str] = os.environ) -> Context:
    """This process's place, from the variables that launchers set; alone where none, half or one rank's are set."""
    found = (read_signs(signs, environment) for signs in LAUNCHERS)
    alone = Context(launcher="none", rank=0, size=1, is_single_host=True)
    return next((context for context in found if context), alone)


def read_signs(signs: Signs, environment: Mapping[str, str]) -> Context | None:
    """The place that one launcher's variables name; None where they are not whole, not numbers, or of one rank."""
    rank, size = (read_count(environment.get(name)) for name in (signs.rank, signs.size))
    if rank is None or size is None or not rank < size or size < 2:
        return None
    if not all(environment.get(name) for name in signs.others):
        return None
    local_size = read_count(environment.get(signs.local_size or ""))
    is_single_host = local_size == size or read_count(environment.get(signs.hosts or "")) == 1
    return Context(launcher=signs.launcher, rank=rank, size=size, is_single_host=is_single_host)


def read_count(text: str | None) -> int | None:
    """The number that `text` is; None for anything else."""
    return int(text) if text and NUMBER.fullmatch(text) else None


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what a launcher said of this process's place."""
    return {name: value for name, value in environment.items() if not LEFT_BY_LAUNCHERS.fullmatch(name)}


def forget_launcher() -> None:
    """Take out of this process's environment what a launch that is none left there: its children would believe it."""
    for name in set(os.environ) - set(without_launcher(os.environ)):
        del os.environ[name]


def host_name() -> str:
    """The name under which the launcher knows this host; network namespaces share a kernel's own host name."""
    return os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()


def machine_id() -> str:
    """What is the same for processes that share a kernel and its network, and for no others; "" where it cannot be read.

    Containers and network namespaces are hosts of their own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        return ""
