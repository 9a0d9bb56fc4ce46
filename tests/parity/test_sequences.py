"""However text becomes samples, the twins train on the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.points import INPUTS, SEQUENCES, cut_point, split_point


@pytest.mark.parametrize(("world_size", "knobs"), SEQUENCES, ids=str)
def test_twins_agree(traced, world_size, knobs):
    parity = compare_points(*(traced[cut_point(framework, world_size, knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize(("split", "knobs"), INPUTS, ids=str)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_frameworks_own_input_hands_over_the_same_batches_in_the_same_order(traced, framework, split, knobs):
    """Bit for bit the same trace."""
    usual, own = (traced[split_point(framework, split, **each)].ranks for each in ({}, knobs))
    for rank in usual:
        assert usual[rank].keys() == own[rank].keys()
        assert [name for name in usual[rank] if not np.array_equal(usual[rank][name], own[rank][name])] == []
