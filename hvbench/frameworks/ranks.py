"""The interface of a rank to the other ranks of its training, with what needs no framework: a single rank, and MPI.

Each twin's `ranks.py` adds Horovod and the framework's own collectives. Ranks that Horovod does not connect find each
other's addresses in the key-value store of the launch.
"""

from __future__ import annotations

import socket
import time
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
    """MPI's ranks, by mpi4py: for trainings with parameter servers and for the reference all-reduces.

    `communicator` has the ranks that train, or on a server all servers; `world` has both, the servers last.
    """

    def __init__(self, *, is_server: bool = False) -> None:
        from mpi4py import MPI

        self.mpi = MPI
        self.world = MPI.COMM_WORLD
        self.communicator = self.world.Split(color=int(is_server), key=self.world.rank)
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
