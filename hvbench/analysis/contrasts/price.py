"""Contrasts that cannot be called -> what would tell: how many more rounds, how many minutes, and which command."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hvbench.analysis.contrasts.points import PointFamily
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.contrasts import WORTH_TELLING, rounds_to_tell


@dataclass(frozen=True, kw_only=True)
class Price:
    """What finds a difference of `difference` with a power of 80 %."""

    difference: float
    rounds: int  # more than there are
    rounds_in_all: int
    minutes: float  # of the whole run's launches, as long as its rounds took so far
    command: str | None  # None: run.json does not say how the run was begun

    def __bool__(self) -> bool:
        return self.rounds > 0


def price_of(run: Run, family: PointFamily, *, difference: float = WORTH_TELLING) -> Price:
    """The rounds after those that `run` has, for contrasts of `family`."""
    rounds = 1 + max((record.repeat for record in run.records), default=-1)
    wanted = max(rounds, rounds_to_tell(family.family, difference=difference))
    more = wanted - rounds
    return Price(
        difference=difference,
        rounds=more,
        rounds_in_all=wanted,
        minutes=more * seconds_of_round(run) / 60,
        command=command_for(run.request, repeats=wanted),
    )


def seconds_of_round(run: Run) -> float:
    """Median wall seconds of a round: the sum of its launches' durations."""
    sums: dict[int, float] = {}
    for record in run.records:
        sums[record.repeat] = sums.get(record.repeat, 0.0) + record.duration_seconds
    return statistics.median(sums.values()) if sums else math.nan


def command_for(request: Mapping[str, object], *, repeats: int) -> str | None:
    """The command that began the run, to be continued up to `repeats` rounds."""
    command = request.get("command")
    words = shlex.split(command) if isinstance(command, str) else []
    if len(words) < 3 or words[1] != "sweep":
        return None
    return shlex.join([*words, "--resume", "-s", f"repeats={repeats}"])
