"""Hostile input, in short; `python -m tests.faults.fuzz --inputs 100000` is the long version."""

from __future__ import annotations

import pytest

from tests.faults.fuzz import LOADERS, fuzz

SLOWEST_SECONDS = 60.0  # no measurement, but a bound on what may count as an answer; an idle machine needs a thirtieth
INPUTS = {"suite": (100, 1000), "record": (100, 1000), "run": (100, 1000), "report": (60, 0)}  # drawn, mutated


@pytest.mark.parametrize("loader", LOADERS)
def test_hostile_input_ends_in_a_value_or_one_line(loader: str) -> None:
    drawn, mutations = INPUTS[loader]
    tally = fuzz(loader, inputs=drawn, derandomize=True, mutations=mutations)
    assert sum(tally.endings.values()) >= drawn + mutations
    assert min(tally.endings["accepted"], tally.endings["refused"]) >= 5, "both ends of the loader are reached"
    assert tally.slowest_seconds < SLOWEST_SECONDS, tally.slowest
