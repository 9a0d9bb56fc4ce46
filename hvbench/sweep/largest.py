"""A search while it runs, on rank 0: one launch after the other of each configuration, until its largest value is known.

Every try is a launch with workers of its own, for what an allocator keeps of one would count against the next, and leaves a record.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hvbench.errors import DataError
from hvbench.plan.jobs import Job, Plan
from hvbench.plan.search import Searched, plan_tries, says_something
from hvbench.records.record import Record
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings
from hvbench.training.packages import make_batches, prepare_text


def list_tries(
    configurations: Sequence[Searched],
    search: Search,
    settings: MeasureSettings,
    *,
    read_records: Callable[[], Sequence[Record]],
) -> Iterator[Job]:
    """One launch after the other, each following from the records of those before, until the largest value of all configurations is known.

    A launch that fails otherwise than for want of memory says nothing: its configuration is given up, and `--resume` tries it again.
    """
    for searched in configurations:
        while jobs := plan_tries([searched], search, settings, skipped=[], records=read_records()).jobs:
            yield jobs[0]
            if not any(record.key == jobs[0].key and says_something(record) for record in read_records()):
                break


def keep_to_text(searched: Sequence[Searched], search: Search) -> list[Searched]:
    """The configurations with no value beyond those for which their text is long enough. Raises DataError where not even 1 is."""
    kept = []
    for each in searched:
        most = count_from_text(each, search)
        kept.append(replace(each, start=min(each.start, most), at_most=most))
    return kept


def count_from_text(searched: Searched, search: Search) -> int:
    """The largest value, up to `at_most`, of which the text fills a batch however it is cut. Raises DataError where not even 1 is."""
    point = searched.with_value(search, 1)
    text = prepare_text(point)
    batches = make_batches(point, text, rank=0)
    if search.largest == "micro_batch_size":
        return min(searched.at_most, batches.samples_per_epoch // point.global_batch_size)

    def is_too_large(value: int) -> bool:
        try:
            make_batches(searched.with_value(search, value), text, rank=0)
        except DataError:
            return True
        return False

    return bisect.bisect_left(range(1, searched.at_most + 1), True, key=is_too_large)


def default_plan(searched: Sequence[Searched]) -> Plan:
    """The configurations with the default of what is searched: what the parity check trains, for the largest would take long."""
    return Plan(jobs=[Job(point=each.point, repeat=0) for each in searched], skipped=[], done=[])
