"""Records -> what the wall time of a run was spent on: timed steps, and everything around them.

In turns a launch waits while another trains, so launches overlap on the wall, but what they do does not: the parts of all launches are
added up, and waiting is none of them. What nobody's clock says (workers that end, launches that failed) is the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hvbench.records.record import RankSamples, Record

SAME_SESSION = timedelta(seconds=60)  # between two launches: more is a run that ended and was resumed
TIMED, REST = "timed steps", "the rest"
WAITING = "turn"  # a phase of `phase_seconds`
# Phase of a worker -> what it is called; steps have samples of their own.
PHASES = {
    "start": "starting workers",
    "ceiling": "ceilings",
    "data": "reading the text",
    "build": "building models",
    "ablation": "ablations",
    "wire": "looks at the wire",
}


PHASES_OF_SCRIPTS = {"script": "starting the script", "data": "before the first step"}


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """The wall time from the begin of the first launch to the end of the last, and seconds of it by part."""

    seconds: float
    parts: dict[str, float] = field(default_factory=dict)  # the longest first, TIMED and REST among them

    @property
    def timed_share(self) -> float:
        """The share of timed steps."""
        return self.parts[TIMED] / self.seconds


def spend_wall(records: Sequence[Record]) -> WallTime | None:
    """What the launches' wall time was spent on; None where there are none, or none that took any."""
    seconds = wall_seconds(records)
    if not seconds:
        return None
    parts: dict[str, float] = {TIMED: 0.0}
    for record in records:
        for name, value in parts_of(record).items():
            parts[name] = parts.get(name, 0.0) + value
    parts[REST] = max(0.0, seconds - sum(parts.values()))
    return WallTime(seconds=seconds, parts=dict(sorted(parts.items(), key=lambda part: -part[1])))


def wall_seconds(records: Iterable[Record]) -> float:
    """From each session's first launch's begin to its last one's end; launches may overlap. Times are to the second."""
    spans = [span for record in records if (span := span_of(record))]
    total, last = timedelta(), None
    for begun, ended in sorted(spans):
        if last is None or begun - last > SAME_SESSION:
            total, last = total + (ended - begun), ended
        elif ended > last:
            total, last = total + (ended - last), ended
    return total.total_seconds()


def span_of(record: Record) -> tuple[datetime, datetime] | None:
    """Begin and end of a launch, its waits for turns included; None where its record has no time that a clock has shown."""
    try:
        begun = datetime.fromisoformat(record.started_at)
        begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
        return begun, begun + timedelta(seconds=record.duration_seconds + waited_seconds(record))
    except (ValueError, OverflowError):
        return None


def waited_seconds(record: Record) -> float:
    """What a launch waited for its turns, which is no part of its duration, by the rank that waited most."""
    waited = (rank.phase_seconds.get(WAITING, 0.0) for rank in record.ranks)
    return max(waited, default=0.0) if record.in_turns else 0.0


def parts_of(record: Record) -> dict[str, float]:
    """Seconds of one launch by part: each by the rank that took longest. Earlier records know of few."""
    ranks = record.ranks
    if not ranks:
        return {}
    steps = max((rank.step_seconds for rank in ranks), key=sum)  # a launch that failed has ranks of different lengths
    warmup = record.warmup_steps
    phases = PHASES_OF_SCRIPTS if record.is_script else PHASES
    known = {
        TIMED: float(sum(steps[warmup:])),
        "first steps": float(sum(steps[:1])),
        "other warm-up steps": float(sum(steps[1:warmup])),
        "evaluations": max(sum(one.seconds for one in rank.evaluations) for rank in ranks),
        "gradient noise": max(sum(one.seconds for one in rank.gradient_noise) for rank in ranks),
        **{name: max(seconds_in(rank, phase) for rank in ranks) for phase, name in phases.items()},
    }
    if record.is_script:
        known["between steps"] = max(sum(rank.data_seconds) for rank in ranks)
    return {name: value for name, value in known.items() if value > 0 and math.isfinite(value)}


def seconds_in(rank: RankSamples, phase: str) -> float:
    """Wall time of a rank in a phase of its worker; of the data and the build earlier records have a sample."""
    earlier = {"data": rank.data_prepare_seconds, "build": rank.build_seconds}
    return rank.phase_seconds.get(phase, earlier.get(phase, 0.0))
