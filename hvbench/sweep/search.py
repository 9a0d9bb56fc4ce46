"""A search while it runs, on rank 0: one launch after the other of each configuration, until its largest value is known.

Every try is a launch with workers of its own, for what an allocator keeps of one would count against the next, and leaves a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hvbench.plan.jobs import Job, Plan
from hvbench.plan.search import Searched, plan_tries, says_something
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings
from hvbench.training import corpus


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
    most: dict[Point, int] = {}
    for each in searched:
        point = each.with_value(search, 1)
        text = corpus.prepare(point.data, vocab_size=point.vocab_size, encoding=point.encoding)
        corpus.require_enough(text, sequence_length=point.sequence_length, global_batch_size=point.global_batch_size)
        if search.largest == "sequence_length":
            most[each.point] = min((len(text.train) - 1) // point.global_batch_size, len(text.validation) - 1)
        else:
            most[each.point] = corpus.count_samples(text.train, point.sequence_length) // point.global_batch_size
    return [
        replace(each, start=min(each.start, most[each.point]), at_most=min(each.at_most, most[each.point]))
        for each in searched
    ]


def default_plan(searched: Sequence[Searched]) -> Plan:
    """The configurations with the default of what is searched: what the parity check trains, for the largest would take long."""
    return Plan(jobs=[Job(point=each.point, repeat=0) for each in searched], skipped=[], done=[])
