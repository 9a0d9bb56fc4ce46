"""One launch in the form that all trackers take, whether it has ended or not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hvbench.records.record import AnyPoint
from hvbench.spec.script import ScriptPoint

Setting = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a curve."""

    step: int  # steps done
    seconds: float  # since 1970: start of the launch plus its training time
    value: float


Curves = Mapping[str, Sequence[Value]]  # name -> values over the steps


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One launch as a tracker's run."""

    id: str  # the same for the same record, another one for another attempt
    name: str
    suite: str
    status: str
    settings: dict[str, Setting]  # field of the point -> value
    curves: dict[str, list[Value]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # metric -> value over the whole launch
    start_seconds: float  # since 1970
    end_seconds: float


class LiveRuns(Protocol):
    """Runs of launches that have not ended, in one tracker; every method may raise StorageError, and may take as long as it takes."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the tracker's, below the run's `tracking/`."""

    def begin(self, run: TrackedRun) -> None:
        """A launch has done its first steps."""

    def add(self, run: TrackedRun, curves: Curves) -> None:
        """More steps of it; people can see them now."""

    def end(self, run: TrackedRun) -> None:
        """Nothing more comes."""


def identify(suite: str, key: str, started_at: str) -> str:
    """The id of a launch of a suite, by its key and by when this attempt at it began."""
    return hashlib.sha256(f"{suite} {key} {started_at}".encode()).hexdigest()[:16]


def read_time(started_at: str) -> float:
    """Seconds since 1970 of a time as records have it. Raises ValueError."""
    return datetime.fromisoformat(started_at).timestamp()


def list_settings(point: AnyPoint, *, repeat: int, revision: str | None) -> dict[str, Setting]:
    """Field of the point -> value; of a script its axes by their names, its command, and its revision, as far as it is known."""
    if not isinstance(point, ScriptPoint):
        return {"repeat": repeat, **point.model_dump()}
    from hvbench.analysis.frame.axes import (
        axis_values,
        is_own,
        plain_name,
    )  # pandas, which a twin's point does not need

    values = axis_values(point) | {"revision": revision}
    plain = {name: plain_name(name) for name in values}
    # An axis that is called as a field of every script keeps its name, with what it is before it.
    named = {
        f"axis.{plain[name]}" if is_own(name) and plain[name] in {"repeat", *values} else plain[name]: value
        for name, value in values.items()
    }
    return {"repeat": repeat, **named}
