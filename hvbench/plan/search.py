"""The largest value that does not run out of memory: which launch is next, from the records of those before it. Pure but for the estimate.

The estimate of memory from the point alone says where to begin, steps that double lead to a value that fits and one that does not, and
bisection between them ends the search. Nothing is remembered but the records, so that a search goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hvbench.errors import UsageError
from hvbench.plan.estimates import estimate_rank_bytes
from hvbench.plan.jobs import Job, Plan, Skipped
from hvbench.plan.skip import why_no_cuda
from hvbench.records.environment import multiplies_natively
from hvbench.records.record import Record
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.search import DOES_NOT_FIT, FITS, Found, Search
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.sizes import show_memory
from hvbench.training.memory import estimate_largest

FIRST_STEP = 8  # of the value: the first step away from it, as large as the estimate is wrong at most
ESTIMATE_WITHIN = 0.1  # a value that is estimated to need more of the limit than that beyond it is not tried
ON_GPU = 8  # where a search begins without an estimate
TRIES = 5  # of a configuration, about


def next_try(found: Found, *, start: int, at_most: int, within: float, repeats: int) -> tuple[int, int] | None:
    """(value, repeat) of the launch that comes next, or None where the search has ended."""
    low, high = found.largest, found.too_large
    if low is None and high is None:
        return min(max(1, start), at_most), 0
    value = _next_value(low, high, tried=found.outcomes, at_most=at_most, within=within)
    if value is not None:
        return value, 0
    count = len(found.outcomes.get(low, ()))
    return (low, count) if low is not None and count < repeats else None


def _next_value(
    low: int | None, high: int | None, *, tried: Mapping[int, Sequence[str]], at_most: int, within: float
) -> int | None:
    steps = sum(1 for ends in tried.values() if (DOES_NOT_FIT in ends) is (low is None)) - 1
    if high is None:
        return min(at_most, low + _step(low, steps)) if low < at_most else None
    if low is None:
        return max(1, high - _step(high, steps)) if high > 1 else None
    if high - low <= max(1, int(within * low)):
        return None
    return (low + high) // 2


def _step(value: int, steps: int) -> int:
    """How far the next try is away from `value`, after `steps` tries in the same direction: twice as far as the one before."""
    return max(1, value // FIRST_STEP) * 2 ** max(0, steps)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One configuration of a search: its point, with the default of what is searched, where to begin, and where the text ends."""

    point: Point
    start: int
    at_most: int

    def with_value(self, search: Search, value: int) -> Point:
        """The point of one try."""
        return self.point.model_copy(update={search.largest: value})

    def has_try(self, search: Search, point: AnyPoint) -> bool:
        """Whether `point` is one of this configuration, whatever it has of what is searched."""
        return isinstance(point, Point) and self.with_value(search, getattr(point, search.largest)) == point


def require_limit(search: Search, measure: MeasureSettings, points: Iterable[Point], *, where: str) -> None:
    """Raise UsageError where the search of a point on a processor would have no end but that of the host's memory, or has another aim, too."""
    if measure.precision_target is not None:
        raise UsageError(
            f"{where}: a precision target has no meaning in a [search]; -s repeats=5 launches what was found again"
        )
    if measure.memory_limit_bytes is None and any(not is_on_gpu(point) for point in points):
        raise UsageError(
            f'{where}: [search] needs a limit: memory_limit_bytes = "2 GiB" in [measure], or --memory-limit 2GiB'
        )


def plan_search(plan: Plan, search: Search, measure: MeasureSettings, *, where: str) -> tuple[Plan, list[Searched]]:
    """The plan's points as configurations of a search, and the plan with the first try of each as its jobs.

    A configuration whose smallest value is estimated to need more than the limit is skipped, with the figure. Raises UsageError where that
    is so of all.
    """
    searched, skipped = [], list(plan.skipped)
    for point in dict.fromkeys(job.point for job in [*plan.jobs, *plan.done]):
        smallest = point.model_copy(update={search.largest: 1})
        if reason := _why_none_fits(smallest, search, measure):
            skipped.append(Skipped(point=smallest, reason=reason))
        else:
            start = where_to_begin(point, search, measure)
            searched.append(Searched(point=point, start=start, at_most=search.at_most))
    if not searched and skipped:
        least = min((each.point for each in skipped if isinstance(each.point, Point)), key=estimate_rank_bytes)
        raise UsageError(
            f"{where}: none of its {len(skipped)} configurations fits, not even the smallest: {_why_none_fits(least, search, measure)}"
        )
    return plan_tries(searched, search, measure, skipped=skipped), searched


def plan_tries(
    searched: Sequence[Searched],
    search: Search,
    measure: MeasureSettings,
    *,
    skipped: Sequence[Skipped],
    records: Sequence[Record] = (),
) -> Plan:
    """What is left to do first, a launch of each configuration that is not known, and what is done, by the records."""
    jobs, done = [], []
    for each in searched:
        same = [record for record in records if each.has_try(search, record.point)]
        tried = next_try(
            read_found(same, search),
            start=each.start,
            at_most=each.at_most,
            within=search.within,
            repeats=measure.repeats,
        )
        jobs += [Job(point=each.with_value(search, tried[0]), repeat=tried[1])] if tried else []
        done += [Job(point=record.point, repeat=record.repeat) for record in same if says_something(record)]
    return Plan(jobs=jobs, skipped=list(skipped), done=done)


def _why_none_fits(smallest: Point, search: Search, measure: MeasureSettings) -> str | None:
    if is_on_gpu(smallest) or measure.memory_limit_bytes is None:
        return None
    allowed = int(measure.memory_limit_bytes * (1 + ESTIMATE_WITHIN))
    if _estimate(smallest, search, limit_bytes=allowed, at_most=1):
        return None
    needed = show_memory(estimate_rank_bytes(smallest))
    return (
        f"{smallest.framework} in {smallest.precision} needs about {needed} with {search.largest} 1, the limit is "
        f"{show_memory(measure.memory_limit_bytes)}"
    )


def where_to_begin(point: Point, search: Search, measure: MeasureSettings) -> int:
    """The value that is tried first: the largest that is estimated to stay within the limit."""
    if is_on_gpu(point) or measure.memory_limit_bytes is None:
        return min(ON_GPU, search.at_most)
    return max(1, _estimate(point, search, limit_bytes=measure.memory_limit_bytes, at_most=search.at_most))


def _estimate(point: Point, search: Search, *, limit_bytes: int, at_most: int) -> int:
    is_native = multiplies_natively(PRECISIONS[point.precision].compute_dtype, device="cpu")
    return estimate_largest(point, search.largest, limit_bytes=limit_bytes, is_native=is_native, at_most=at_most)


def is_on_gpu(point: Point) -> bool:
    """Whether a point trains on a GPU of this host, whose memory is the limit."""
    return point.device == "cuda" or (point.device == "auto" and why_no_cuda(point.framework) is None)


def says_something(record: Record) -> bool:
    """Whether a launch says that a value fits or that it does not."""
    return record.outcome.status in (FITS, DOES_NOT_FIT)


def read_found(records: Iterable[Record], search: Search) -> Found:
    """What the launches of one configuration say."""
    outcomes: dict[int, list[str]] = {}
    for record in records:
        if says_something(record):
            outcomes.setdefault(getattr(record.point, search.largest), []).append(record.outcome.status)
    return Found(outcomes=outcomes)


def describe_search(search: Search, measure: MeasureSettings) -> str:
    """`the largest micro_batch_size under 1.5 GiB a worker`."""
    limit = (
        "that fits"
        if measure.memory_limit_bytes is None
        else f"under {show_memory(measure.memory_limit_bytes)} a worker"
    )
    return f"the largest {search.largest} {limit}"
