"""Whoever exchanges the gradients, and whatever the ranks share, the updates are the same: against Horovod's average, and twin by twin."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.points import ADASUM, SAME_AS_HOROVOD, SHARDED, configured_point, exchanged_point, sharded_point

each_strategy = pytest.mark.parametrize("choices", SAME_AS_HOROVOD, ids=lambda choices: choices["strategy"])
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def assert_same_work(a, b) -> None:
    parity = compare_points(a, b)
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@each_strategy
def test_twins_agree_under_every_strategy(traced, choices):
    assert_same_work(*(traced[exchanged_point(framework, choices)] for framework in FRAMEWORKS))


@each_strategy
@each_framework
def test_a_strategy_does_the_work_of_horovod(traced, framework, choices):
    horovod = traced[configured_point(framework, (2, "fp32", "none"))]
    assert_same_work(traced[exchanged_point(framework, choices)], horovod)


@pytest.mark.parametrize("knobs", SHARDED, ids=lambda knobs: knobs["shard"])
def test_ranks_that_share_their_state_do_the_work_of_those_that_hold_it(traced, knobs):
    shared, held = (
        [traced[sharded_point(framework, knobs, **more)] for framework in FRAMEWORKS]
        for more in ({}, {"shard": "none", "recompute": "none"})
    )
    assert_same_work(*shared)
    for one, other in zip(shared, held, strict=True):
        assert_same_work(one, other)


def test_twins_agree_under_adasum(traced):
    assert_same_work(*(traced[exchanged_point(framework, ADASUM)] for framework in FRAMEWORKS))


@each_framework
def test_adasum_is_no_average(traced, framework):
    """Two ranks' gradients are added where they are orthogonal and averaged where they agree (arXiv:2006.02924)."""
    adasum = traced[exchanged_point(framework, ADASUM)].ranks[0]
    average = traced[configured_point(framework, (2, "fp32", "none"))].ranks[0]
    names = [name for name in average if name.startswith("gradient/")]
    assert all(np.isfinite(adasum[name]).all() for name in names)
    assert max(relative_error(adasum[name], average[name]) for name in names) > 1e-2
