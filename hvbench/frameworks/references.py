"""Reference all-reduces without a framework: MPI's own, and the textbook's ring on MPI's sends and receives.

`hvbench allreduce` times them beside the frameworks' all-reduces. They work on numpy arrays.
"""

from __future__ import annotations

import numpy as np

from hvbench.frameworks.ranks import MpiRanks


class Runtime:
    """See `hvbench.frameworks.contract.Runtime`; there is no framework and no device here."""

    def __init__(
        self, *, rank: int, world_size: int, local_rank: int, threads: int, device: str, strategy: str = "horovod"
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = "cpu"
        self.ranks = MpiRanks()

    def versions(self) -> dict[str, str]:
        return {"mpi": self.ranks.mpi.Get_library_version().partition(",")[0]}

    def synchronize(self) -> None:
        """Nothing is queued: every call returns when its work is done."""

    def barrier(self) -> None:
        self.ranks.barrier()

    def gather(self, value: float) -> list[float]:
        return self.ranks.gather(value)

    def peak_device_memory_bytes(self) -> int | None:
        return None

    def release(self) -> None:
        """Nothing is held between cases."""

    def shutdown(self) -> None:
        self.ranks.leave()


class MpiCollective:
    """`MPI_Allreduce` with whichever algorithm MPI picks, then the division by the number of ranks, as in Horovod's average."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        self.communicator = runtime.ranks.communicator
        self.mpi = runtime.ranks.mpi
        self.values: dict[int, np.ndarray] = {}
        self.averages: dict[int, np.ndarray] = {}

    def fill(self, values: np.ndarray, *, place: int) -> None:
        self.values[place] = values.copy()
        self.averages[place] = np.zeros_like(values)

    def run(self, place: int) -> None:
        average = self.averages[place]
        self.communicator.Allreduce(self.values[place], average, op=self.mpi.SUM)
        average *= np.float32(1 / self.communicator.size)

    def result(self, place: int) -> np.ndarray:
        return self.averages[place]


class RingCollective(MpiCollective):
    """Ring all-reduce (Patarasuk & Yuan, JPDC 2009): n - 1 steps of reduce-scatter, then n - 1 of all-gather."""

    def __init__(self, elements: int, *, compression: str, runtime: Runtime) -> None:
        super().__init__(elements, compression=compression, runtime=runtime)
        self.parts: dict[int, list[np.ndarray]] = {}  # views of the averages

    def fill(self, values: np.ndarray, *, place: int) -> None:
        super().fill(values, place=place)
        self.parts[place] = np.array_split(self.averages[place], self.communicator.size)
        self.incoming = np.empty_like(self.parts[place][0])

    def run(self, place: int) -> None:
        size, rank, parts = self.communicator.size, self.communicator.rank, self.parts[place]
        left, right = (rank - 1) % size, (rank + 1) % size
        np.copyto(self.averages[place], self.values[place])
        for step in range(size - 1):
            outgoing, sums = parts[(rank - step) % size], parts[(rank - step - 1) % size]
            incoming = self.incoming[: sums.size]
            self.communicator.Sendrecv(outgoing, dest=right, recvbuf=incoming, source=left)
            sums += incoming
        for step in range(size - 1):
            outgoing, sums = parts[(rank + 1 - step) % size], parts[(rank - step) % size]
            self.communicator.Sendrecv(outgoing, dest=right, recvbuf=sums, source=left)
        self.averages[place] *= np.float32(1 / size)


COLLECTIVES = {"mpi4py": MpiCollective, "ring": RingCollective}
