"""Summaries -> what the pages are about: suites, machines, the lines of every metric with their change points, what is stale or failed.

The lines and their change points are those of `hvbench history`; nothing here judges anything anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from hvbench.analysis.frame.axes import axis_values, order_values
from hvbench.analysis.frame.metrics import METRICS
from hvbench.comparison.history import Line, MeasuredRun, trace_values
from hvbench.comparison.sides import choose_axes, describe_point
from hvbench.io.folders import age_key
from hvbench.records.record import AnyPoint
from hvbench.site.collect import name_file
from hvbench.site.summary import AbSummary, Failure, PairSummary, RunSummary, RunTables

MAX_AXES = 10  # that have a column and a filter
MAX_CHOICES = 60  # of a filter


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """The runs of a suite on one machine with one set of software, oldest first: what `hvbench history` shows."""

    fingerprint: str
    machine: str
    runs: Sequence[RunSummary]
    labels: Mapping[str, str] = field(repr=False)  # point -> what it is called in its suite

    @cached_property
    def lines(self) -> dict[str, dict[str, Line]]:
        """Metric -> point -> its line."""
        found = {}
        for metric in METRICS:
            measured = [
                MeasuredRun(
                    name=run.id,
                    created_at=run.created_at,
                    revision=run.script_revision,
                    values={
                        key: point.values[metric.name]
                        for key, point in run.points.items()
                        if metric.name in point.values
                    },
                )
                for run in self.runs
            ]
            if any(run.values for run in measured):
                lines = trace_values(measured, metric, labels=self.labels)
                found[metric.name] = {line.point_id: line for line in lines}
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteRuns:
    """Everything of one suite."""

    name: str
    runs: Sequence[RunSummary]  # oldest first
    abs: Sequence[AbSummary]  # oldest first

    @property
    def id(self) -> str:
        """What its pages and files are called."""
        return name_file(self.name)

    @cached_property
    def points(self) -> dict[str, AnyPoint]:
        """Point id -> the point, by id."""
        found = {key: point.point for run in self.runs for key, point in run.points.items()}
        return dict(sorted(found.items()))

    @cached_property
    def axes(self) -> list[str]:
        """The axes that distinguish its points, in table order."""
        return choose_axes(self.points.values())[:MAX_AXES] if self.points else []

    @cached_property
    def labels(self) -> dict[str, str]:
        """Point id -> what it is called, as `hvbench history` and `compare` call it."""
        axes = choose_axes(self.points.values()) if self.points else []
        return {key: describe_point(point, axes) for key, point in self.points.items()}

    @cached_property
    def choices(self) -> dict[str, list[object]]:
        """Axis -> its values, in their order, of those that can be filtered by."""
        values = {axis: [axis_values(point).get(axis) for point in self.points.values()] for axis in self.axes}
        ordered = {axis: order_values(axis, found) for axis, found in values.items()}
        return {axis: found for axis, found in ordered.items() if 1 < len(found) <= MAX_CHOICES}

    @cached_property
    def setups(self) -> list[Setup]:
        """One a machine and set of software, that with the newest run first."""
        newest: dict[str, RunSummary] = {}
        for run in self.runs:
            newest |= dict.fromkeys(run.fingerprints, run)
        place = {run.id: number for number, run in enumerate(self.runs)}
        return [
            Setup(
                fingerprint=each,
                machine=newest[each].machine,
                runs=[run for run in self.runs if each in run.fingerprints],
                labels=self.labels,
            )
            for each in sorted(newest, key=lambda each: -place[newest[each].id])
        ]

    def newest_of(self, machine: str, most: int) -> list[RunSummary]:
        """The newest runs on a machine, oldest first."""
        return [run for run in self.runs if run.machine == machine][-most:]

    @cached_property
    def newest(self) -> dict[str, RunSummary]:
        """Machine -> its newest run, the newest first."""
        found = {run.machine: run for run in self.runs}
        return dict(sorted(found.items(), key=lambda item: sort_key(item[1]), reverse=True))


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What somebody should look at, in a line; without a run there is no page of it."""

    kind: str  # failed, unfinished, stale, unreadable
    what: str
    suite: str = ""
    machine: str = ""
    place: str = ""
    run: RunSummary | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """All that is known."""

    suites: Sequence[SuiteRuns]  # by name
    pairs: Mapping[tuple[str, str], PairSummary]
    tables: Mapping[str, RunTables]  # of the newest runs, by their ids
    troubles: Sequence[Trouble]
    running: frozenset[str]  # ids of runs that a process works on

    @cached_property
    def runs(self) -> list[RunSummary]:
        """All runs, oldest first."""
        return sorted((run for suite in self.suites for run in suite.runs), key=sort_key)

    @cached_property
    def machines(self) -> dict[str, list[RunSummary]]:
        """Machine -> its runs, oldest first; the machine with the newest run first."""
        found: dict[str, list[RunSummary]] = {}
        for run in self.runs:
            found.setdefault(run.machine, []).append(run)
        return dict(sorted(found.items(), key=lambda item: sort_key(item[1][-1]), reverse=True))


def sort_key(run: RunSummary) -> tuple[str, tuple[str, int, str]]:
    """What runs are sorted by, oldest first: as `hvbench history` sorts them."""
    return run.created_at, age_key(Path(run.name))


def group(runs: Iterable[RunSummary], abs_: Iterable[AbSummary]) -> list[SuiteRuns]:
    """One group a suite, by name."""
    runs, abs_ = sorted(runs, key=sort_key), sorted(abs_, key=lambda ab: ab.began)
    names = sorted({*(run.suite for run in runs), *(ab.suite for ab in abs_)})
    return [
        SuiteRuns(
            name=name, runs=[run for run in runs if run.suite == name], abs=[ab for ab in abs_ if ab.suite == name]
        )
        for name in names
    ]


def list_troubles(
    suites: Sequence[SuiteRuns], failures: Sequence[Failure], *, running: frozenset[str], today: date, stale_days: int
) -> list[Trouble]:
    """What is unreadable, failed, unfinished or stale: of runs the newest of each suite on each machine."""
    found = [Trouble(kind="unreadable", what=one.reason, place=one.place) for one in failures]
    for suite in suites:
        for run in suite.runs:
            words = {"suite": suite.name, "machine": run.machine, "run": run, "place": run.name}
            found += [Trouble(kind="unreadable", what=problem, **words) for problem in run.problems]
            if suite.newest[run.machine] is not run:
                continue
            lost = {status: count for status, count in run.statuses.items() if status != "ok"}
            if lost:
                kinds = ", ".join(f"{count} {status}" for status, count in sorted(lost.items()))
                found.append(
                    Trouble(kind="failed", what=f"{sum(lost.values())} of {run.launches} launches: {kinds}", **words)
                )
            if run.missing and run.id not in running:
                found.append(Trouble(kind="unfinished", what=run.missing, **words))
            if (age := count_days(run, today)) > stale_days:
                found.append(Trouble(kind="stale", what=f"its newest run is {age} days old", **words))
        for ab in suite.abs:
            found += [Trouble(kind="unreadable", what=each, suite=suite.name, place=ab.name) for each in ab.problems]
    order = ("unreadable", "failed", "unfinished", "stale")
    return sorted(found, key=lambda trouble: (order.index(trouble.kind), trouble.suite, trouble.place))


def count_days(run: RunSummary, today: date) -> int:
    """Whole days since a run began; 0 where nothing says when."""
    return (today - date.fromisoformat(run.began[:10])).days if run.began else 0
