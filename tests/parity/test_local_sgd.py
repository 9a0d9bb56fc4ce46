"""Updates of each rank's own, averaged now and then: the formulas by hand, twin by twin, and ranks that hold the same in the end."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.alone import LOCAL_KNOBS, LOCAL_RATE, LOCAL_UPDATES, lively_weights, small_point
from tests.parity.points import LOCAL_SGD, local_point

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_choice = pytest.mark.parametrize("choices", LOCAL_SGD, ids=["plain", "outer"])


@each_choice
def test_twins_agree(traced, choices):
    parity = compare_points(*(traced[local_point(framework, choices)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@each_choice
@each_framework
def test_ranks_update_by_their_own_gradients_and_hold_the_same_parameters_behind_a_round(traced, framework, choices):
    found = traced[local_point(framework, choices)]
    assert found.digests[0]["parameters"] == found.digests[1]["parameters"]
    one, other = (found.ranks[rank]["gradient_norm"] for rank in range(2))
    start = choices.get("sync_start", 0)
    assert np.array_equal(one[:start], other[:start])
    assert (one[start:] != other[start:]).all()


@each_framework
def test_it_is_another_training_than_with_an_exchange_at_every_step(traced, framework):
    plain = traced[local_point(framework, LOCAL_SGD[0])].ranks[0]
    outer = traced[local_point(framework, LOCAL_SGD[1])].ranks[0]
    names = [name for name in plain if name.startswith("update/") and name.endswith(".weight")]
    assert min(relative_error(outer[name], plain[name]) for name in names) > 0.05
    assert plain["loss"][-1] < plain["loss"][0] - 0.2 and outer["loss"][-1] < outer["loss"][0] - 0.2


@each_framework
def test_an_outer_step_by_hand(alone, framework):
    """Momentum SGD in rounds of two, in float64: v := m v + c, x := x + h (c + m v), and the momentum begins anew."""
    numbers = alone[framework, "local"]
    h, m = LOCAL_KNOBS["outer_learning_rate"], LOCAL_KNOBS["outer_momentum"]
    point = small_point(framework, **LOCAL_KNOBS)
    for name, common in lively_weights(point).items():
        x, velocity, momentum = common, 0.0, 0.0
        for step in range(LOCAL_UPDATES):
            momentum = LOCAL_KNOBS["momentum"] * momentum + numbers[f"step{step}/gradient/{name}"]
            x = x - LOCAL_RATE * momentum
            if step % 2:
                velocity = m * velocity + (x - common)
                common = common + h * (x - common + m * velocity)
                x, momentum = common, 0.0
            np.testing.assert_allclose(numbers[f"step{step}/after/{name}"], x, rtol=1e-12, atol=1e-12, err_msg=name)
