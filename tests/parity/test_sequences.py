"""However text becomes samples, the twins train on the same ones."""

from __future__ import annotations

import pytest

from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.points import SEQUENCES, cut_point


@pytest.mark.parametrize(("world_size", "knobs"), SEQUENCES, ids=str)
def test_twins_agree(traced, world_size, knobs):
    parity = compare_points(*(traced[cut_point(framework, world_size, knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven
