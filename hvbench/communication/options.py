"""The options of one `hvbench allreduce`: which cases, how often, for how long, and where its records go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.communication.plan import CaseAxes, list_cases, list_sizes
from hvbench.communication.record import Case
from hvbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AllreduceOptions:
    """Choices of one `hvbench allreduce`, by the names of its options."""

    world_sizes: Sequence[int] | None  # None: as many ranks as are launched
    begin_bytes: int  # of the smallest message
    end_bytes: int  # of the largest message, at most
    factor: int  # from one size to the next
    implementations: Sequence[str]
    controllers: Sequence[str]
    compressions: Sequence[str]
    repeats: int
    budget_seconds: float  # of the timed calls of a case, roughly
    links: Sequence[int] | None  # bits per second; None: the links as they are
    out: Path | None
    resume: bool

    def list_cases(self, *, world_size: int, has_mpi: bool) -> list[Case]:
        """The cases, in a launch of `world_size` ranks; without MPI, those of Gloo alone.

        Raises:
            UsageError: too few or too many ranks, sizes in the wrong order, or no case at all.
        """
        worlds = self.world_sizes or (world_size,)
        if min(worlds) < 2 or max(worlds) > world_size:
            raise UsageError(
                f"an all-reduce needs 2 ranks at least, and at most the {world_size} that are launched: give --np"
            )
        if self.end_bytes < self.begin_bytes:
            raise UsageError(f"--end {self.end_bytes}: smaller than --begin {self.begin_bytes}")
        axes = CaseAxes(
            implementations=self.implementations,
            controllers=[name for name in self.controllers if has_mpi or name != "mpi"],
            compressions=self.compressions,
            world_sizes=worlds,
            sizes=list_sizes(self.begin_bytes, self.end_bytes, factor=self.factor),
            links=self.links or (None,),
        )
        cases = list_cases(axes)
        if not cases:
            raise UsageError("none of these cases exists: the references are MPI's and compress nothing")
        return cases
