"""Each optimizer of each twin against its paper in numpy float64, and the twins against each other at each world size."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.frameworks.contract import Arrays
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.training.optimizers import is_adapted, state_shapes
from tests.parity.alone import (
    OPTIMIZER_KNOBS,
    OPTIMIZER_RATES,
    optimizer_gradients,
    optimizer_weights,
    small_point,
)
from tests.parity.points import (
    BROKEN,
    OPTIMIZER_MISTAKES,
    OPTIMIZER_WORLDS,
    OPTIMIZERS,
    WORLD_SIZES,
    optimizer_point,
    warming_point,
)
from tests.parity.reference import reference_updates
from tests.parity.reference_optimizers import reference_adafactor, reference_lamb, reference_lars, reference_sgd

UPDATES = len(OPTIMIZER_RATES)
REFERENCES = {
    "adamw": reference_updates,
    "sgd": reference_sgd,
    "plain_sgd": reference_sgd,
    "lars": reference_lars,
    "lamb": reference_lamb,
    "adafactor": reference_adafactor,
}


def arrays_under(numbers: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


SOUND = next(name for name in FRAMEWORKS if name != BROKEN)


def updates_of_the_paper(name: str) -> dict[str, list[np.ndarray]]:
    """Each tensor of the small point after each of its updates.

    Which tensors decay and which have a trust ratio is said here by hand: all matrices, and matrices and positions.
    """
    point = small_point(FRAMEWORKS[0])
    gradients, expected = [optimizer_gradients(point, step) for step in range(UPDATES)], {}
    for key, value in optimizer_weights(point).items():
        choices = {knob: choice for knob, choice in OPTIMIZER_KNOBS[name].items() if knob != "optimizer"}
        if key == "position_embedding" or value.ndim == 1:
            choices["weight_decay"] = 0.0
        if name in ("lamb", "lars"):
            choices["is_adapted"] = value.ndim == 2
        # One block: what is above it has the whole rate, the embeddings below it the least (arXiv:1801.06146, section 3.2).
        depth = 2 if "embedding" in key else 1 if key.startswith("block0.") else 0
        rates = [rate * choices.get("layer_lr_decay", 1.0) ** depth for rate in OPTIMIZER_RATES]
        choices.pop("layer_lr_decay", None)
        expected[key] = REFERENCES[name](value, [each[key] for each in gradients], rates, **choices)
    return expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", OPTIMIZER_KNOBS)
def test_updates_follow_the_paper(alone, framework, name):
    point = small_point(framework)
    weights, gradients = optimizer_weights(point), [optimizer_gradients(point, step) for step in range(UPDATES)]
    assert {key for key, value in weights.items() if value.ndim == 2} == {key for key in weights if is_adapted(key)}
    for key, expected in updates_of_the_paper(name).items():
        for step in range(UPDATES):
            after = alone[framework, "optimizers"][f"{name}/step{step}/after/{key}"]
            np.testing.assert_allclose(after, expected[step], rtol=1e-12, atol=1e-12, err_msg=f"{key}, step {step}")
            assert np.array_equal(after, weights[key]) == (not gradients[step][key].any())


@pytest.mark.parametrize("name", OPTIMIZER_KNOBS)
def test_the_twins_keep_the_same_and_what_is_kept_is_all_that_is_needed(alone, name):
    """The last update, held to its paper above, was made by an optimizer that started from this state."""
    states = [arrays_under(alone[framework, "optimizers"], f"{name}/state/") for framework in FRAMEWORKS]
    optimizer = OPTIMIZER_KNOBS[name].get("optimizer", name)
    shapes = state_shapes(small_point("pytorch", **{"optimizer": optimizer, **OPTIMIZER_KNOBS[name]}))
    expected = {f"{slot}/{key}": shape for slot, each in shapes.items() for key, shape in each.items()}
    for state in states:
        assert int(state.pop("updates")) == UPDATES - 1
        assert {key: value.shape for key, value in state.items()} == expected
    for key in expected:
        np.testing.assert_allclose(states[0][key], states[1][key], rtol=1e-9, atol=1e-15, err_msg=key)


@pytest.mark.parametrize(("optimizer", "world_size"), OPTIMIZER_WORLDS)
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
