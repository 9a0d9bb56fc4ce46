"""Records -> what the frameworks' profilers recorded of scripts: the longest operators of every rank, and the files of their traces.

Records are untrusted: a trace is a link only where its path is one that hvbench gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hvbench.records.record import Profile, Record

PERFETTO = "ui.perfetto.dev"
TRACE = re.compile(r"profiles/[\w.+-]{1,300}/rank\d{1,6}-(torch|tensorflow)\.json\.gz", re.ASCII)
MOST = 5


@dataclass(frozen=True, kw_only=True)
class RankProfile:
    """One rank of one launch. Texts are not escaped."""

    label: str
    longest: str  # the operators that take longest, in words
    traces: tuple[str, ...]  # paths relative to the run folder


def list_profiles(records: Iterable[Record]) -> list[RankProfile]:
    """Every rank that was profiled, launch by launch."""
    return [
        RankProfile(
            label=f"{record.point_id.rpartition('-')[0]}, launch {record.repeat}, rank {rank.rank}",
            longest=describe_longest(rank.profile),
            traces=find_traces(rank.profile),
        )
        for record in records
        for rank in record.ranks
        if rank.profile
    ]


def find_traces(profile: Profile) -> tuple[str, ...]:
    """The files that Perfetto opens."""
    return tuple(trace for trace in profile.traces if TRACE.fullmatch(trace) and "/../" not in trace)


def describe_longest(profile: Profile) -> str:
    """`aten::mm 8 ms, aten::copy_ 0.2 ms of a step of 9.1 ms`, or why nothing is known."""
    if not profile.operators:
        return profile.problem or "nothing was recorded"
    spent = {name: time.seconds + time.device_seconds for name, time in profile.operators.items()}
    longest = sorted(spent.items(), key=lambda item: -item[1])[:MOST]
    operators = ", ".join(f"{name[:60]} {seconds * 1e3:.2g} ms" for name, seconds in longest if seconds > 0)
    return f"{operators} of a step of {profile.step_seconds * 1e3:.3g} ms while it was recorded"
