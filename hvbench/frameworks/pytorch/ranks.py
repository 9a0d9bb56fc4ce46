"""The connection between PyTorch's ranks: by Horovod, or by torch.distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass

import horovod.torch as hvd
import torch
import torch.distributed

from hvbench.frameworks.parameter_server.client import ServedRanks
from hvbench.frameworks.ranks import Ranks, SingleRank, find_address, group_by_level, publish_address
from hvbench.spec.exchange import STRATEGIES


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The two levels at which a rank exchanges: with the ranks of its host, and with those of its place on every host; None: it is alone there."""

    host: hvd.ProcessSet | None
    between: hvd.ProcessSet | None


class HorovodRanks:
    """See `hvbench.frameworks.ranks.Ranks`; `levels` where the strategy has two."""

    def __init__(self, *, rank: int, world_size: int, has_levels: bool = False) -> None:
        self.world_size = world_size
        self.levels: Levels | None = None
        if has_levels:
            self.levels = _init_levels(rank, world_size)
        else:
            hvd.init()

    def barrier(self) -> None:
        hvd.barrier()

    def gather(self, value: float) -> list[float]:
        return hvd.allgather(torch.tensor([value], dtype=torch.float64), name="gather").tolist()

    def leave(self) -> None:
        if self.levels:
            self.barrier()  # a level's last exchange may have ended here and not yet on another host, where the shutdown would cut it off
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
        return ServedRanks(rank=rank, world_size=world_size)
    return HorovodRanks(rank=rank, world_size=world_size, has_levels=STRATEGIES[strategy].has_levels)


def _init_levels(rank: int, world_size: int) -> Levels:
    """Initialise Horovod with a process set for every host, and one for every place on the hosts; those of `rank`."""
    groups = group_by_level(os.environ, rank=rank, world_size=world_size)
    # Of all ranks Horovod has a set already, and a rank needs none to be alone.
    made = {tuple(ranks): hvd.ProcessSet(ranks) for level in groups for ranks in level if 1 < len(ranks) < world_size}
    hvd.init(process_sets=list(made.values()))
    sets = made | {tuple(range(world_size)): hvd.global_process_set}
    host, between = (sets.get(tuple(next(ranks for ranks in level if rank in ranks))) for level in groups)
    return Levels(host=host, between=between)


def _open_store(rank: int, world_size: int) -> torch.distributed.TCPStore:
    """The store by which the process group connects; rank 0 serves it on a free port, which it publishes."""
    if rank == 0:
        store = torch.distributed.TCPStore("0.0.0.0", 0, world_size, is_master=True, wait_for_workers=False)
        publish_address("store", port=store.port)
        return store
    host, _, port = find_address("store").rpartition(":")
    return torch.distributed.TCPStore(host, int(port), world_size, is_master=False)
