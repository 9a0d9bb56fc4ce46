"""What each rank of a launch works itself, how long it stands idle, and how often it comes last."""

from __future__ import annotations

from dataclasses import dataclass

from hvbench.analysis.frame.idle import idle_seconds, own_seconds, waits_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import LaunchSamples, find_defect, make_samples
from hvbench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class RankWork:
    """What one rank did in one launch: means over the timed steps."""

    own_seconds: float  # without the wait for the averages
    idle_seconds: float
    idle_share: float  # of the time that the steps took
    last_share: float  # of the steps that end in an exchange: in which no rank came later


def measure_ranks(samples: LaunchSamples) -> list[RankWork]:
    """One entry a rank, in order, of a launch that recorded the waits."""
    waits = waits_of(samples)
    assert waits is not None
    idle, own = idle_seconds(waits), own_seconds(samples, waits)
    has_exchange = waits.any(axis=0) if waits.any() else slice(None)  # local updates wait for nobody
    return [
        RankWork(
            own_seconds=float(own[rank].mean()),
            idle_seconds=float(idle[rank].mean()),
            idle_share=float(idle[rank].sum() / samples.slowest.sum()),
            last_share=float((idle[rank] == 0)[has_exchange].mean()),
        )
        for rank in range(len(waits))
    ]


def measure_launches(run: Run) -> dict[str, list[RankWork]]:
    """Key of a launch -> its ranks' work, of the launches that recorded waits."""
    return {record.key: measure_ranks(make_samples(record)) for record in run.records if records_waits(record)}


def records_waits(record: Record) -> bool:
    """Whether a launch is evidence of who waits for whom."""
    if not record.is_measured or not all(rank.exchange_wait_seconds for rank in record.ranks) or find_defect(record):
        return False
    return waits_of(make_samples(record)) is not None


def has_waits(run: Run) -> bool:
    """Whether any launch is."""
    return bool(run.derive(measure_launches))
