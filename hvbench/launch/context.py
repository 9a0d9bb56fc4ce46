"""Who launched this process, and which rank it is: read from the environment alone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Literal

Launcher = Literal["horovodrun-gloo", "mpi", "hvbench", "none"]


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


def detect_context() -> Context:
    """Read the variables that horovodrun (Gloo), mpirun or hvbench's own launch set."""
    if "HVBENCH_RANK" in os.environ:
        return _context("hvbench", "HVBENCH_RANK", "HVBENCH_SIZE", "HVBENCH_SIZE")
    if "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ and "HOROVOD_RANK" in os.environ:
        return _context("horovodrun-gloo", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE")
    if "OMPI_COMM_WORLD_RANK" in os.environ:
        return _context("mpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
    if "PMI_RANK" in os.environ and "PMI_SIZE" in os.environ:  # MPICH and its kin; their hosts are not known
        return Context(
            launcher="mpi", rank=int(os.environ["PMI_RANK"]), size=int(os.environ["PMI_SIZE"]), is_single_host=False
        )
    return Context(launcher="none", rank=0, size=1, is_single_host=True)


def host_name() -> str:
    """The name under which the launcher knows this host; network namespaces share a kernel's own host name."""
    return os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()


def _context(launcher: Launcher, rank: str, size: str, local_size: str) -> Context:
    total = int(os.environ[size])
    is_single_host = int(os.environ.get(local_size, "0")) == total
    return Context(launcher=launcher, rank=int(os.environ[rank]), size=total, is_single_host=is_single_host)
