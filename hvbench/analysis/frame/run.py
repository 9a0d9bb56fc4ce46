"""A run's records and what follows from them, each computed once: what every topic of a report reads.

A frame takes milliseconds a record, and a report has some twenty tables and plots that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from hvbench.analysis.frame.axes import are_scripts, plain_name, varying_axes
from hvbench.analysis.frame.frames import choose_slowest_rank, evaluation_frame, point_frame, step_frame
from hvbench.analysis.frame.metrics import RATE, STEP, STEPS, TOKENS, Speed
from hvbench.analysis.frame.samples import sort_records
from hvbench.records.record import Record

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """The launches of a run, in the order of their `launch` number, and what was asked for (`run.json`).

    The frames are shared: nobody changes them.
    """

    records: Sequence[Record]
    request: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None  # to be named by who goes on with it; None: `--resume` finds it
    _derived: dict[Callable[[Run], Any], Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", sort_records(self.records))

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row a launch; see `point_frame`."""
        return point_frame(self.records)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a launch, rank and step; see `step_frame`."""
        return step_frame(self.records)

    @cached_property
    def slowest_steps(self) -> pd.DataFrame:
        """The rows of `steps` of each launch's slowest rank; see `choose_slowest_rank`."""
        return choose_slowest_rank(self.steps)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row a launch and evaluation; see `evaluation_frame`."""
        return evaluation_frame(self.records)

    @cached_property
    def varying_axes(self) -> list[str]:
        """Fields of the point with more than one value, in table order."""
        return varying_axes(self.points)

    @property
    def other_axes(self) -> list[str]:
        """The same without the framework, which has a colour or a column of its own, and without what goes together with another axis."""
        bound = {name for names in self.bound_axes.values() for name in names}
        return [axis for axis in self.varying_axes if axis != "framework" and axis not in bound]

    @cached_property
    def bound_axes(self) -> dict[str, list[str]]:
        """Axis -> those whose values go together with its own, as the suite says; of those that go together the first is named."""
        groups = self.request.get("together")
        groups = [list(group) for group in groups if isinstance(group, Mapping)] if isinstance(groups, list) else []
        return {names[0]: names[1:] for names in groups if len(names) > 1}

    @cached_property
    def compared_axes(self) -> list[str]:
        """Of these the ones that the suite's question compares; the others are circumstances. All, where it names none that varies."""
        named = self.request.get("compares")
        chosen = [axis for axis in self.other_axes if isinstance(named, list) and plain_name(axis) in named]
        return chosen or self.other_axes

    @cached_property
    def is_of_scripts(self) -> bool:
        """Whether people's own training was measured, of which hvbench knows neither framework nor model."""
        return are_scripts(self.points)

    @cached_property
    def has_losses_in_nats(self) -> bool:
        """Whether its losses are cross-entropies: neither what scripts log, in a unit that nobody knows, nor squares of a label's unit."""
        return not self.is_of_scripts and not (self.points["objective"] == "regression").any()

    @cached_property
    def speed(self) -> Speed:
        """How speeds are told and compared: by tokens where every launch that was measured says how many it trained on."""
        measured = self.points[self.points[STEP].notna()]
        return TOKENS if measured[RATE].notna().all() else STEPS

    @cached_property
    def was_evaluated(self) -> bool:
        """Whether the run's question is about learning, else about speed: any launch evaluated on validation data.

        A script evaluates as part of what it does, whatever is asked of it: its question is about learning where there is a target.
        """
        if self.is_of_scripts:
            return any(record.measure.target_loss is not None for record in self.records)
        asked = any(record.measure.evaluate_every for record in self.records)
        return asked or any(rank.evaluations for record in self.records for rank in record.ranks)

    @cached_property
    def names_axes(self) -> bool:
        """Whether the suite says which of its axes its question compares."""
        return bool(self.request.get("compares"))

    @cached_property
    def records_by_point(self) -> dict[str, list[Record]]:
        """Point id -> the records of its launches."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.point_id, []).append(record)
        return found

    def points_with(self, *columns: str) -> pd.DataFrame:
        """The axes that vary, how the launches ended, and `columns`: few enough to choose rows of it again and again."""
        names = ("launch", "point_id", "framework", "precision", "is_emulated", "status", *self.varying_axes, *columns)
        return self.points[list(dict.fromkeys(names))].copy()

    def points_of(self, is_wanted: Callable[[Record], bool]) -> pd.DataFrame:
        """The rows of `points` whose record is wanted."""
        return self.points[[is_wanted(record) for record in self.records]]

    def derive(self, compute: Callable[[Run], T]) -> T:
        """`compute(self)`, computed once: what several parts of a report share, such as fitted models."""
        if compute not in self._derived:
            self._derived[compute] = compute(self)
        return self._derived[compute]
