"""The ranks of a worker set seen from one of them, whatever they talk over; each twin adds Horovod's and its own.

Ranks that Horovod does not bring together find each other's addresses in the key-value store of the launch.
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
    """All ranks that train one point."""

    world_size: int

    def barrier(self) -> None:
        """Wait for all ranks."""

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, by rank: the same list on all ranks, bit for bit."""

    def leave(self) -> None:
        """Part from the others; the process ends next."""


class SingleRank:
    """A rank alone."""

    world_size = 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def gather(self, value: float) -> list[float]:
        """The only value there is."""
        return [value]

    def leave(self) -> None:
        """Nobody to part from."""


class MpiRanks:
    """Ranks of MPI under mpi4py, for the parameter server's ranks and for the references.

    `communicator` holds the ranks that train, `world` also a server behind them.
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
        """Every rank's `value`, by rank: the same list on all ranks, bit for bit."""
        return self.communicator.allgather(value)

    def leave(self) -> None:
        """End MPI: a process that ends without is a failure to mpirun."""
        self.mpi.Finalize()


def publish_address(name: str, *, port: int) -> str:
    """Make this rank's address, HOST:PORT, known to the others under `name`; returns it."""
    address = f"{own_address()}:{port}"
    ask_store(f"{SCOPE}/{name}", method="PUT", body=address.encode())
    return address


def find_address(name: str) -> str:
    """The address that a rank has published under `name`; raises TimeoutError when none does."""
    deadline = time.monotonic() + FIND_SECONDS
    while time.monotonic() < deadline:
        if content := ask_store(f"{SCOPE}/{name}"):
            return content.decode()
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"no rank has published {name} within {FIND_SECONDS:.0f} s")


def own_address() -> str:
    """This host's address on the way to the launch's key-value store: where other ranks reach it, too."""
    host, port = store_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing
        return probe.getsockname()[0]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
