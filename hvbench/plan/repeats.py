"""More launches after the planned ones: what is launched again until a run is as precise as was asked for, and what its time allows.

Pure decisions over records; `hvbench.sweep.run` launches what they say, and `hvbench.plan.precision` says how far the run is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from hvbench.plan.jobs import Job, worker_group
from hvbench.plan.precision import Aim, half_widths_of_rates, half_widths_of_ratios, list_families
from hvbench.records.record import Record
from hvbench.spec.point import Point

BUDGET_SECONDS = 1800.0
MAX_FAILURES_IN_A_ROW = 3

Unit = list[Point]  # points that are launched together or not at all


def units_to_repeat(
    points: Sequence[Point],
    records: Iterable[Record],
    *,
    target: float,
    aim: Aim = Aim.RATES,
    together: Callable[[Point], Hashable] = lambda point: point,
) -> list[Unit]:
    """The points, in their order, of which something is not yet known to ± `target`, and which can still be launched.

    What, `aim` says: a point's tokens/s, or their ratio to another framework's at the same configuration. It takes at least
    MIN_LAUNCHES + LOOKS - 1 launches that ended in `ok`, or rounds. A point whose last MAX_FAILURES_IN_A_ROW launches did
    not is given up, and so is its ratio to another. Points for which `together` gives the same are one unit.
    """
    records = list(records)
    by_point = group_records(records)
    able = [
        point for point in points if count_failures_in_a_row(by_point.get(point.point_id, [])) < MAX_FAILURES_IN_A_ROW
    ]
    wide = find_wide(points, able, records, target=target, aim=aim)
    units: dict[Hashable, Unit] = {}
    for point in able:
        units.setdefault(together(point), []).append(point)
    return [unit for unit in units.values() if any(point.point_id in wide for point in unit)]


def find_wide(
    points: Sequence[Point], able: Sequence[Point], records: Sequence[Record], *, target: float, aim: Aim
) -> set[str]:
    """Ids of the `able` ones of `points` of which something is not known to ± `target`."""
    names = {point.point_id for point in able}
    if aim is Aim.RATES:
        widths = half_widths_of_rates(records)
        return {name for name in names if widths.get(name, float("inf")) > target}
    ratios = half_widths_of_ratios(records, list_families(points))
    return {name for pair, width in ratios.items() if width > target and names.issuperset(pair) for name in pair}


def next_jobs(units: Sequence[Unit], records: Iterable[Record], *, rest_seconds: float) -> list[Job]:
    """One more round of each of `units` that fits into `rest_seconds`, in the order of a plan.

    Where not all fit, those with the fewest launches so far come first, and of equals the earlier. A launch is
    expected to take what the point's launches have taken so far (nothing, where there was none); those of a unit
    get the same repeat, for they are compared as one round.
    """
    by_point = group_records(records)
    chosen: list[Job] = []
    for unit in sorted(units, key=lambda unit: min(len(by_point.get(point.point_id, [])) for point in unit)):
        known = [same for point in unit if (same := by_point.get(point.point_id))]
        seconds = sum(statistics.median(record.duration_seconds for record in same) for same in known)
        if rest_seconds > 0 and seconds <= rest_seconds:
            rest_seconds -= seconds
            repeat = max((record.repeat for same in known for record in same), default=-1) + 1
            chosen += [Job(point=point, repeat=repeat) for point in unit]
    points = [point for unit in units for point in unit]
    groups = {group: place for place, group in enumerate(dict.fromkeys(map(worker_group, points)))}
    order = {point.point_id: position for position, point in enumerate(points)}

    def place(job: Job) -> tuple[int, int, int]:
        backwards = -1 if job.repeat % 2 else 1
        return job.repeat, backwards * groups[worker_group(job.point)], backwards * order[job.point.point_id]

    return sorted(chosen, key=place)


def extra_keys(run: Mapping[str, object], *, repeats: int) -> list[tuple[str, int]]:
    """(point id, repeat) of the launches that an earlier session of a run added to its `repeats` planned ones."""
    jobs = run.get("jobs")
    parts = [str(job).rpartition(".r") for job in jobs] if isinstance(jobs, list) else []
    return [(name, int(number)) for name, dot, number in parts if dot and number.isdecimal() and int(number) >= repeats]


def group_records(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Point id -> its records by repeat; one that an interrupt cut short says nothing about it and is left out."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.repeat):
        if record.outcome.status != "interrupted":
            groups.setdefault(record.point_id, []).append(record)
    return groups


def count_failures_in_a_row(records: Sequence[Record]) -> int:
    """How many of a point's last launches did not end in `ok`."""
    statuses = [record.outcome.status == "ok" for record in records]
    return statuses[::-1].index(True) if True in statuses else len(statuses)
