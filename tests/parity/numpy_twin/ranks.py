"""numpy's ranks: one, which has nobody to meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hvbench.frameworks.ranks import Ranks, SingleRank

_ALONE = "numpy trains on one rank, not on {world_size}: Horovod has no binding for it"


@dataclass(frozen=True, kw_only=True)
class Levels:
    """One rank is alone at both levels."""

    host: Any = None
    between: Any = None


class HorovodRanks(SingleRank):
    """Horovod has no binding for numpy."""

    def __init__(self, *, rank: int, world_size: int, has_levels: bool = False) -> None:
        raise ValueError(_ALONE.format(world_size=world_size))

    def barrier(self) -> None:
        """Never reached."""

    def gather(self, value: float) -> list[float]:
        return [value]

    def leave(self) -> None:
        """Never reached."""


class NativeRanks(SingleRank):
    """numpy has no collectives of its own."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        raise ValueError(_ALONE.format(world_size=world_size))

    def barrier(self) -> None:
        """Never reached."""

    def gather(self, value: float) -> list[float]:
        return [value]

    def leave(self) -> None:
        """Never reached."""


def join(strategy: str, *, rank: int, world_size: int) -> Ranks:
    """Meet the other ranks in the way that `strategy` does."""
    if world_size == 1:
        return SingleRank()
    return (NativeRanks if strategy == "native" else HorovodRanks)(rank=rank, world_size=world_size)
