"""The connection between PyTorch's ranks: by Horovod, or by torch.distributed."""

from __future__ import annotations

import os

import horovod.torch as hvd
import torch
import torch.distributed

from hvbench.frameworks.parameter_server import ServedRanks
from hvbench.frameworks.ranks import Ranks, SingleRank, find_address, publish_address
from hvbench.spec.exchange import STRATEGIES


class HorovodRanks:
    """See `hvbench.frameworks.ranks.Ranks`."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        self.world_size = world_size
        hvd.init()

    def barrier(self) -> None:
        hvd.barrier()

    def gather(self, value: float) -> list[float]:
        return hvd.allgather(torch.tensor([value], dtype=torch.float64), name="gather").tolist()

    def leave(self) -> None:
        hvd.shutdown()


class NativeRanks:
    """torch.distributed's process group, over gloo or, on GPUs, NCCL."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        self.world_size = world_size
        if interface := os.environ.get("HOROVOD_GLOO_IFACE"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        torch.distributed.init_process_group(store=_open_store(rank, world_size), rank=rank, world_size=world_size)

    def barrier(self) -> None:
        torch.distributed.barrier()

    def gather(self, value: float) -> list[float]:
        values = [torch.zeros(1, dtype=torch.float64) for _ in range(self.world_size)]
        torch.distributed.all_gather(values, torch.tensor([value], dtype=torch.float64))
        return torch.cat(values).tolist()

    def leave(self) -> None:
        torch.distributed.destroy_process_group()


def join(strategy: str, *, rank: int, world_size: int) -> Ranks:
    """Connect this rank to the others as `strategy` does; waits for all of them."""
    if world_size == 1:
        return SingleRank()
    if STRATEGIES[strategy].is_native:
        return NativeRanks(rank=rank, world_size=world_size)
    if STRATEGIES[strategy].is_served:
        return ServedRanks()
    return HorovodRanks(rank=rank, world_size=world_size)


def _open_store(rank: int, world_size: int) -> torch.distributed.TCPStore:
    """The store by which the process group connects; rank 0 serves it on a free port, which it publishes."""
    if rank == 0:
        store = torch.distributed.TCPStore("0.0.0.0", 0, world_size, is_master=True, wait_for_workers=False)
        publish_address("store", port=store.port)
        return store
    host, _, port = find_address("store").rpartition(":")
    return torch.distributed.TCPStore(host, int(port), world_size, is_master=False)
