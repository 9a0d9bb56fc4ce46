"""Everything that is known -> the pages of the site and the parts of its data, one after the other, as (path, text)."""

from __future__ import annotations

from collections.abc import Iterator

from hvbench.site.frame import Frame, Page
from hvbench.site.front import front_page, problem_page
from hvbench.site.machine_pages import machine_pages
from hvbench.site.point_pages import point_pages
from hvbench.site.run_pages import Compared, ab_page, pair_page, run_page
from hvbench.site.suite_pages import suite_pages


def pages_of(frame: Frame) -> Iterator[Page]:
    """The front page comes last: whoever looks meanwhile finds what it links to."""
    known = {run.id: run for run in frame.atlas.runs}
    compared: dict[str, list[Compared]] = {}
    for (a, b), pair in frame.atlas.pairs.items():
        for one in (a, b):
            compared.setdefault(one, []).append((pair, known[a], known[b]))
    for suite in frame.atlas.suites:
        for run in suite.runs:
            pairs = compared.get(run.id, [])
            yield run_page(frame, suite, run, pairs)
            yield from (pair_page(frame, suite, *each) for each in pairs if each[2] is run)
        for ab in suite.abs:
            yield ab_page(frame, suite, ab)
        yield from point_pages(frame, suite)
        yield from suite_pages(frame, suite)
    yield from machine_pages(frame)
    yield problem_page(frame)
    yield front_page(frame)
