"""Hostile input, in short; `python -m tests.faults.fuzz --inputs 100000` is the long version."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from hvbench.analysis.frame import point_frame
from hvbench.analysis.tables import convergence_table, render_csv, render_markdown, render_text, throughput_table
from hvbench.errors import UsageError
from hvbench.store import parse_record
from tests.faults.fuzz import LOADERS, fuzz, plausible_records

SLOWEST_SECONDS = 20.0  # an idle machine needs a tenth


@pytest.mark.parametrize("loader", LOADERS)
def test_hostile_input_ends_in_a_value_or_one_line(loader: str) -> None:
    tally = fuzz(loader, inputs=700, derandomize=True)
    assert sum(tally.endings.values()) >= 700
    assert tally.endings["accepted"] > 20 and tally.endings["refused"] > 100, "both ends of the loader are reached"
    assert tally.slowest_seconds < SLOWEST_SECONDS, tally.slowest


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plausible_records())
def test_a_record_that_is_accepted_shows_as_safe_cells(content: bytes) -> None:
    try:
        record = parse_record(content, where="fuzz.json")
    except UsageError:
        return
    points = point_frame([record])
    for table in (throughput_table(points), convergence_table(points)):
        for text in (render_text(table), render_markdown(table), render_csv(table)):
            assert all(each.isprintable() or each == "\n" for each in text)
        assert "<script" not in render_markdown(table) and "<img" not in render_markdown(table)
