"""The interface of a rank to the other ranks of its training, with what needs no framework: a single rank, and MPI.

Each twin's `ranks.py` adds Horovod and the framework's own collectives. Ranks that Horovod does not connect find each
other's addresses in the key-value store of the launch.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Protocol

from hvbench.launch.rendezvous import ask_store, store_address

SCOPE = "/hvbench-ranks"  # in the launch's key-value store
FIND_SECONDS = 120.0
POLL_SECONDS = 0.05


class Ranks(Protocol):
    """The ranks that train one point, seen from one of them."""

    world_size: int

    def barrier(self) -> None:
        """Wait for all ranks."""

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, ordered by rank: the same list on all ranks, bit for bit."""

    def leave(self) -> None:
        """Disconnect from the others, before the process ends."""


class SingleRank:
    """The only rank of its training: no communication."""

    world_size = 1

    def barrier(self) -> None:
        """Return at once."""

    def gather(self, value: float) -> list[float]:
        """This rank's value alone."""
        return [value]

    def leave(self) -> None:
        """Do nothing."""


class MpiRanks:
    """MPI's ranks, by mpi4py: for the reference all-reduces."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.mpi = MPI
        self.communicator = MPI.COMM_WORLD
        self.world_size: int = self.communicator.size

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.communicator.Barrier()

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, ordered by rank: the same list on all ranks, bit for bit."""
        return self.communicator.allgather(value)

    def leave(self) -> None:
        """Finalize MPI: to mpirun a process that ends without has failed."""
        self.mpi.Finalize()


def group_by_level(
    environment: Mapping[str, str], *, rank: int, world_size: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The ranks of each host, and those that have the same place on every host, from what the launch says of this rank's place.

    Raises RuntimeError unless ranks are numbered host by host, as many on each: else some would have no counterpart.
    """
    names = ("HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE", "HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE")
    place, on_host, host, hosts = (int(environment.get(name, "0")) for name in names)
    if on_host * hosts != world_size or host * on_host + place != rank:
        raise RuntimeError(
            f"strategy hierarchical needs as many ranks on every host, numbered host by host: rank {rank} of {world_size} is number {place} of "
            f"{on_host} on host {host} of {hosts}"
        )
    of_hosts = [list(range(each * on_host, (each + 1) * on_host)) for each in range(hosts)]
    return of_hosts, [list(ranks) for ranks in zip(*of_hosts, strict=True)]


def publish_address(name: str, *, port: int) -> str:
    """Publish this rank's address under `name`, for `find_address`; the address, HOST:PORT."""
    address = f"{own_address()}:{port}"
    ask_store(f"{SCOPE}/{name}", method="PUT", body=address.encode())
    return address


def find_address(name: str) -> str:
    """The address HOST:PORT that a rank publishes under `name`, waited for. Raises TimeoutError after FIND_SECONDS."""
    deadline = time.monotonic() + FIND_SECONDS
    while time.monotonic() < deadline:
        if content := ask_store(f"{SCOPE}/{name}"):
            return content.decode()
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"no rank has published {name} within {FIND_SECONDS:.0f} s")


def own_address() -> str:
    """This host's address in the network of the launch's key-value store, where the other ranks reach it."""
    host, port = store_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing
        return probe.getsockname()[0]
