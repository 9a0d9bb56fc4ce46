"""More launches after the planned ones: which points still need some, until their intervals are narrow enough.

Pure decisions over records; `hvbench.sweep.run` launches what they say. An interval that has just become narrow may be so by
chance, and stopping there would keep the chance (optional stopping). So the intervals of the last LOOKS launches all have
to be narrow; how well the last one then covers was simulated, see docs/measurements.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from hvbench.plan.jobs import Job, worker_group
from hvbench.records.record import Record
from hvbench.spec.point import Point

BUDGET_SECONDS = 1800.0
MIN_LAUNCHES = 3  # two that happen to agree would seem certain
LOOKS = 3
MAX_FAILURES_IN_A_ROW = 3


def points_to_repeat(
    points: Sequence[Point],
    records: Iterable[Record],
    *,
    target: float,
    together: Callable[[Point], Hashable] = lambda point: point,
) -> list[Point]:
    """The points, in their order, whose tokens/s is not yet known to ± `target` and which can still be launched.

    A point needs at least MIN_LAUNCHES + LOOKS - 1 launches that ended in `ok`. One whose last MAX_FAILURES_IN_A_ROW launches did
    not is given up. Points for which `together` gives the same are launched again together, as long as any of them needs it.
    """
    records = list(records)
    widths = relative_half_widths(records)
    by_point = group_records(records)
    able = [
        point for point in points if count_failures_in_a_row(by_point.get(point.point_id, [])) < MAX_FAILURES_IN_A_ROW
    ]
    wide = {together(point) for point in able if widths.get(point.point_id, float("inf")) > target}
    return [point for point in able if together(point) in wide]


def relative_half_widths(records: Iterable[Record]) -> dict[str, float]:
    """Point id -> half width of the interval of its tokens/s / centre, the widest of the last LOOKS launches' looks."""
    from hvbench.analysis.frame.frames import point_frame

    launches = point_frame(records)
    launches = launches[launches["status"] == "ok"].sort_values("repeat")
    return {
        str(name): widest_look(group["tokens_per_second"].astype(float).tolist())
        for name, group in launches.groupby("point_id", sort=False)
    }


def widest_look(rates: Sequence[float]) -> float:
    """The widest relative half width of the intervals after each of the last LOOKS launches, a rate each; infinite where one had too few."""
    from hvbench.analysis.stats.estimates import estimate_rate

    counts = range(len(rates) - LOOKS + 1, len(rates) + 1)
    if counts[0] < MIN_LAUNCHES:
        return float("inf")
    return max(estimate_rate(rates[:count]).relative_half_width for count in counts)


def next_jobs(points: Sequence[Point], records: Iterable[Record], *, rest_seconds: float) -> list[Job]:
    """One more launch of each of `points` that fits into `rest_seconds`, in the order of a plan.

    Where not all fit, those with the fewest launches so far come first, and of equals the earlier. A launch is
    expected to take what the point's launches have taken so far (nothing, where there was none).
    """
    by_point = group_records(records)
    chosen: list[Job] = []
    for point in sorted(points, key=lambda point: len(by_point.get(point.point_id, []))):
        known = by_point.get(point.point_id, [])
        seconds = statistics.median(record.duration_seconds for record in known) if known else 0.0
        if rest_seconds > 0 and seconds <= rest_seconds:
            rest_seconds -= seconds
            chosen.append(Job(point=point, repeat=max((record.repeat for record in known), default=-1) + 1))
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
