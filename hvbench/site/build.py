"""Results -> a site: collect, settle what is not known yet, group, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from hvbench.comparison.result import LaunchSet
from hvbench.comparison.sides import MeasuredSet, measure
from hvbench.errors import MissingData
from hvbench.io.atomic import explaining_write_errors
from hvbench.io.folders import is_locked
from hvbench.records.store import RunFolder
from hvbench.site.atlas import Atlas, SuiteRuns, group, list_troubles
from hvbench.site.collect import AB, RUN, Place, collect
from hvbench.site.digest import digest_run, digest_tables, read_run
from hvbench.site.folder import SiteFolder
from hvbench.site.frame import Frame
from hvbench.site.pages import pages_of
from hvbench.site.pairs import choose_pairs, compare_pair, digest_ab
from hvbench.site.summary import AbSummary, Failure, PairSummary, RunSummary, RunTables
from hvbench.site.work import Cache, Task, settle

WITH_TABLES = 3  # newest runs of a suite on a machine whose pages have the tables of their reports
SHELF_RECORDS = 4000  # that are kept for the next pair


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a site is to be made of."""

    results: Path
    today: date
    stale_days: int
    processes: int
    may_be_empty: bool = False


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build has done."""

    atlas: Atlas
    files: int
    written: int
    unreadable: int
    largest_bytes: int


def build(wanted: Wanted, folder: SiteFolder, cache: Cache) -> Built:
    """Write the site of everything below `wanted.results`.

    Raises UsageError, StorageError, and MissingData where nothing can be read (unless that may be).
    """
    places, problems = collect(wanted.results)
    failures = [Failure(place=place, reason=reason) for place, reason in problems]
    tasks = [digest_task(place) for place in places]
    with explaining_write_errors(folder.path):
        digested = settle(tasks, cache, processes=wanted.processes)
        failures += [found for found in digested.values() if isinstance(found, Failure)]
        runs = [found for found in digested.values() if isinstance(found, RunSummary)]
        abs_ = [found for found in digested.values() if isinstance(found, AbSummary)]
        if not runs and not abs_ and not wanted.may_be_empty:
            first = f"; the first: {failures[0].place}: {failures[0].reason}" if failures else ""
            raise MissingData(f"{wanted.results}: no run with a readable record{first}")
        suites = group(runs, abs_)
        known = {place.id: place for place in places}
        more = [*list_table_tasks(suites, known), *list_pair_tasks(suites, known)]
        found_more = settle(more, cache, processes=wanted.processes).values()
        cache.forget_others([*tasks, *more])
    failures += [found for found in found_more if isinstance(found, Failure)]
    running = frozenset(place.id for place in places if place.kind == RUN and is_locked(place.path))
    atlas = Atlas(
        suites=suites,
        pairs={(pair.a, pair.b): pair for pair in found_more if isinstance(pair, PairSummary)},
        tables={each.id: each for each in found_more if isinstance(each, RunTables)},
        troubles=list_troubles(
            suites, failures, running=running, today=wanted.today, stale_days=wanted.stale_days
        ),
        running=running,
    )  # fmt: skip
    write(folder, Frame(atlas=atlas, results=str(wanted.results), today=wanted.today, stale_days=wanted.stale_days))
    return Built(
        atlas=atlas,
        files=len(folder.names),
        written=folder.written,
        unreadable=sum(trouble.kind == "unreadable" for trouble in atlas.troubles),
        largest_bytes=folder.largest_bytes,
    )


def write(folder: SiteFolder, frame: Frame) -> None:
    """Every file of the site that is not as it should be already; raises StorageError."""
    folder.begin()
    folder.write_assets()
    for name, text in pages_of(frame):
        folder.write(name, text)
    folder.end()


def digest_task(place: Place) -> Task:
    """To make the summary of a run or an A/B comparison."""

    def make() -> RunSummary | AbSummary:
        return digest_ab(place) if place.kind == AB else digest_run(place, *read_run(place))

    kind = AbSummary if place.kind == AB else RunSummary
    return Task(
        key=place.id, made_of=place.signature, kind=kind, place=place.name, make=make, records=place.records,
        prefix=str(place.path),
    )  # fmt: skip


def list_table_tasks(suites: Sequence[SuiteRuns], places: Mapping[str, Place]) -> list[Task]:
    """To make the tables of the newest runs of every suite on every machine."""
    runs = [run for suite in suites for machine in suite.newest for run in suite.newest_of(machine, WITH_TABLES)]
    return [table_task(places[run.id]) for run in runs]


def table_task(place: Place) -> Task:
    """To make the tables of a run."""

    def make() -> RunTables:
        return digest_tables(place, read_run(place)[0])

    return Task(
        key=f"{place.id} tables", made_of=place.signature, kind=RunTables, place=place.name, make=make,
        records=place.records, prefix=str(place.path),
    )  # fmt: skip


def list_pair_tasks(suites: Sequence[SuiteRuns], places: Mapping[str, Place]) -> list[Task]:
    """To compare the runs that are compared; neighbours share what they read."""
    shelf = Shelf()
    return [
        pair_task(places[a.id], places[b.id], shelf)
        for suite in suites
        for a, b in sorted(choose_pairs(suite), key=lambda pair: pair[1].created_at)
    ]


def pair_task(a: Place, b: Place, shelf: Shelf) -> Task:
    """To compare b with a."""

    def make() -> PairSummary:
        return compare_pair(shelf.load(a), shelf.load(b), ids=(a.id, b.id))

    return Task(
        key=f"{a.id} {b.id}",
        made_of=f"{a.signature} {b.signature}",
        kind=PairSummary,
        place=f"{b.name} against {a.name}",
        make=make,
        records=a.records + b.records,
    )


class Shelf:
    """The records of the runs that were read last."""

    def __init__(self) -> None:
        self._sets: dict[str, MeasuredSet] = {}

    def load(self, place: Place) -> MeasuredSet:
        """All launches of a run with their metrics, as one side of a comparison."""
        found = self._sets.pop(place.id, None)
        if found is None:
            records, _ = RunFolder(place.path).read_records()
            found = measure(LaunchSet(name=place.name, records=records, job=str(place.path)))
        self._sets[place.id] = found  # the newest comes last
        while len(self._sets) > 2 and sum(len(each.records) for each in self._sets.values()) > SHELF_RECORDS:
            del self._sets[next(iter(self._sets))]
        return found
