"""Contrasts that cannot be called -> what would tell: how many more rounds, how many minutes, and which command."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hvbench.analysis.contrasts.points import PointFamily
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.contrasts import WORTH_TELLING, rounds_to_tell
from hvbench.records.record import Record

CONTINUABLE = ("sweep", "run")  # commands that know --resume and -s
DROPPED = ("--resume", "--fresh")  # of the words that began a run: said anew, or contradicting it
MOST_PAUSE_SECONDS = 120.0  # between two launches of a session: workers start; what is longer, nobody waited for


@dataclass(frozen=True, kw_only=True)
class Price:
    """What finds a difference of `difference` in four of five cases; false where the rounds that there are should have."""

    difference: float  # 0.05 is 5 %
    rounds: int  # more than there are
    rounds_in_all: int
    minutes: float  # as long as the run's rounds took so far
    command: str | None  # None: run.json does not say how the run was begun

    def __bool__(self) -> bool:
        return self.rounds > 0


def price_of(run: Run, family: PointFamily, *, difference: float = WORTH_TELLING, of_mean: bool = False) -> Price:
    """The rounds after those that `run` has, for a contrast of `family`, or `of_mean` for the mean over all of them."""
    rounds = 1 + max((record.repeat for record in run.records), default=-1)
    wanted = max(rounds, rounds_to_tell(family.family, difference=difference, of_mean=of_mean))
    return Price(
        difference=difference,
        rounds=wanted - rounds,
        rounds_in_all=wanted,
        minutes=(wanted - rounds) * run.derive(seconds_of_round) / 60,
        command=command_to_continue(run.request, repeats=wanted, folder=run.folder),
    )


def seconds_of_round(run: Run) -> float:
    """Median over the rounds of the seconds in which any of its launches ran, counted once where several ran side by side."""
    rounds: dict[int, list[Record]] = {}
    for record in run.records:
        rounds.setdefault(record.repeat, []).append(record)
    return statistics.median(map(_busy_seconds, rounds.values())) if rounds else math.nan


def _busy_seconds(records: Sequence[Record]) -> float:
    """From the first start to the last end, without pauses that are longer than workers take to start."""
    starts = pd.to_datetime([record.started_at for record in records], utc=True, errors="coerce", format="ISO8601")
    if starts.isna().any():  # a damaged record: one launch after the other is the most that it can have been
        return sum(record.duration_seconds for record in records)
    seconds = (starts - starts.min()).total_seconds()
    total, until = 0.0, 0.0
    for start, record in sorted(zip(seconds, records, strict=True), key=lambda pair: pair[0]):
        if start - until <= MOST_PAUSE_SECONDS:
            start = min(start, until)
        end = start + record.duration_seconds
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def command_to_continue(request: Mapping[str, object], *, repeats: int, folder: str | None = None) -> str | None:
    """The command that began a run, to go on up to `repeats` rounds; in `folder`, where --resume would take another."""
    try:
        _program, *words = shlex.split(str(request.get("command") or ""))
    except ValueError:  # no words, or a quotation without an end: somebody else wrote this run.json
        return None
    if not words or words[0] not in CONTINUABLE or not str(request["command"]).isprintable():
        return None
    kept = [word for word in _without_repeats(words) if word not in DROPPED]
    where = ["--out", folder] if folder and not any(word.partition("=")[0] == "--out" for word in kept) else []
    return shlex.join(["hvbench", *kept, *where, "--resume", "-s", f"repeats={repeats}"])


def _without_repeats(words: Sequence[str]) -> list[str]:
    """`words` without `-s repeats=N`, however it was written."""
    kept: list[str] = []
    for word in words:
        is_setting = word.removeprefix("--set=").removeprefix("-s").startswith("repeats=")
        if is_setting and word.startswith("repeats=") and kept and kept[-1] in ("-s", "--set"):
            kept.pop()
        elif not is_setting:
            kept.append(word)
    return kept
