"""Each optimizer of each twin against its paper in numpy float64, and the twins against each other at each world size."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.spec import FRAMEWORKS
from hvbench.tracing import compare_points
from hvbench.training.optimizers import is_adapted
from tests.parity.alone import OPTIMIZER_KNOBS, OPTIMIZER_UPDATES, lively_weights, small_point
from tests.parity.points import (
    BROKEN,
    OPTIMIZER_MISTAKES,
    OPTIMIZERS,
    WORLD_SIZES,
    optimizer_point,
    warming_point,
)
from tests.parity.reference_optimizers import reference_adafactor, reference_lamb, reference_lars, reference_sgd

REFERENCES = {
    "sgd": reference_sgd,
    "plain_sgd": reference_sgd,
    "lars": reference_lars,
    "lamb": reference_lamb,
    "adafactor": reference_adafactor,
}
SOUND = next(name for name in FRAMEWORKS if name != BROKEN)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", OPTIMIZER_KNOBS)
def test_updates_follow_the_paper(alone, framework, name):
    """Which tensors decay and which have a trust ratio is said here by hand: all matrices, and matrices and positions."""
    numbers = alone[framework, "optimizers"]
    knobs = {key: value for key, value in OPTIMIZER_KNOBS[name].items() if key not in ("learning_rate", "optimizer")}
    rates = [float(numbers[f"{name}/step{step}/rate"]) for step in range(OPTIMIZER_UPDATES)]
    assert rates[0] < rates[1]
    adapted = set()
    for key, value in lively_weights(small_point(framework)).items():
        gradients = [numbers[f"{name}/step{step}/gradient/{key}"] for step in range(OPTIMIZER_UPDATES)]
        choices = dict(knobs)
        if key == "position_embedding" or value.ndim == 1:
            choices["weight_decay"] = 0.0
        if name == "lamb":
            choices["beta1"] = 0.9
        if name in ("lamb", "lars"):
            choices["is_adapted"] = value.ndim == 2
            adapted |= {key} if value.ndim == 2 else set()
        expected = REFERENCES[name](value, gradients, rates, **choices)
        for step in range(OPTIMIZER_UPDATES):
            after = numbers[f"{name}/step{step}/after/{key}"]
            np.testing.assert_allclose(after, expected[step], rtol=1e-12, atol=1e-12, err_msg=f"{key}, step {step}")
            assert not np.array_equal(after, value)
    if adapted:
        assert adapted == {key for key in lively_weights(small_point(framework)) if is_adapted(key)}


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twins_agree_with_every_optimizer(traced, optimizer, world_size):
    parity = compare_points(*(traced[optimizer_point(framework, optimizer, world_size)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_and_none_is_another(traced, optimizer, framework):
    trace = traced[optimizer_point(framework, optimizer, 1)].ranks[0]
    assert trace["loss"][-1] < trace["loss"][0] - 0.1
    others = [traced[optimizer_point(framework, other, 1)].ranks[0] for other in OPTIMIZERS if other != optimizer]
    assert not any(np.allclose(trace["loss"], other["loss"], rtol=1e-4) for other in others)


@pytest.mark.parametrize(("optimizer", "knobs"), OPTIMIZER_MISTAKES, ids=str)
def test_a_wrong_knob_of_an_optimizer_is_seen(traced, optimizer, knobs):
    broken = traced[optimizer_point(BROKEN, optimizer, 1, **knobs)]
    parity = compare_points(broken, traced[optimizer_point(SOUND, optimizer, 1)])
    red = {each.name.removeprefix("rank0/").partition("/")[0] for each in parity.deviations if not each.is_within}
    assert "update_length" in red and not {"logits", "gradient"} & red


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_twins_agree_while_the_batch_warms_up(traced, world_size):
    points = [warming_point(framework, world_size) for framework in FRAMEWORKS]
    parity = compare_points(*(traced[point] for point in points))
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_cut_into_ranks_does_not_matter_while_the_batch_warms_up(traced, framework):
    one, two = (traced[warming_point(framework, world_size)] for world_size in WORLD_SIZES)
    joined = np.mean([trace["loss"] for trace in two.ranks.values()], axis=0)
    np.testing.assert_allclose(joined, one.ranks[0]["loss"], rtol=5e-7)
