"""Each twin alone against plain numpy in float64, so that both being wrong alike is caught."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.frameworks.contract import Arrays
from hvbench.parity.norms import relative_error
from hvbench.registry import FRAMEWORKS
from hvbench.training.weights import is_decayed, trained_shapes
from tests.parity.alone import (
    ACTIVATIONS,
    DIRECTIONS,
    FAMILIES,
    FINITE_STEP,
    UPDATE_KNOBS,
    lively_weights,
    random_direction,
    small_point,
)
from tests.parity.reference import reference_logits, reference_loss, reference_pair_logits, reference_updates

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)

POINT = small_point("pytorch")
SIZES = {"num_layers": POINT.num_layers, "num_heads": POINT.num_heads}
FLOAT64_ERROR = 1e-12
each_objective = pytest.mark.parametrize("objective", ["causal_lm", "masked_lm", "classification"])
each_case = pytest.mark.parametrize("case", ["causal_lm", "masked_lm", "classification", *FAMILIES])
COORDINATES = 4  # of each tensor, beside its steepest


def arrays_under(numbers: Arrays, prefix: str = "gradient/") -> Arrays:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def numbers_of(alone, framework: str, case: str) -> tuple[Arrays, Arrays, dict]:
    """What a twin recorded of an objective or a family, the weights that it had, and how the reference is to compute it."""
    point = small_point(framework, **FAMILIES.get(case, {"objective": case}))
    numbers = alone[framework, "float64" if case == "causal_lm" else f"float64_{case}"]
    how = SIZES | {"is_causal": point.is_causal, "activation": ACTIVATIONS.get(case, point.activation)}
    how |= {"lora_scale": point.lora_alpha / point.lora_rank}
    return numbers, lively_weights(point), how


@each_case
def test_logits_and_loss(alone, framework, case):
    numbers, weights, sizes = numbers_of(alone, framework, case)
    inputs, targets = numbers["inputs"], numbers["targets"]
    assert numbers["logits"].dtype == np.float64
    expected = reference_logits(weights, inputs[0], **sizes)
    assert relative_error(numbers["logits"], expected) < FLOAT64_ERROR
    loss = reference_loss(weights, inputs, targets, **sizes)
    assert numbers["loss"].mean() == pytest.approx(loss, rel=FLOAT64_ERROR)
    assert (targets < 0).any() == case.endswith("masked_lm")
    of_samples, alone_ = numbers["sample_losses"], numbers["sample_losses_alone"]
    assert of_samples.shape == (len(inputs[0]),)
    assert of_samples == pytest.approx(alone_, rel=FLOAT64_ERROR), "the samples beside one do not change its loss"
    if "pair_logits" in numbers:
        assert (
            relative_error(numbers["pair_logits"], reference_pair_logits(weights, inputs[0], **sizes)) < FLOAT64_ERROR
        )
        targets = np.where(np.arange(targets.shape[-1]) > 0, targets, -1)  # evaluations are of tokens alone
    each = [reference_loss(weights, inputs[:1, i : i + 1], targets[:1, i : i + 1], **sizes) for i in range(len(alone_))]
    assert of_samples == pytest.approx(each, rel=FLOAT64_ERROR)


@each_objective
def test_gradient_along_random_directions(alone, framework, objective):
    """The twin's own losses on both sides of the point."""
    numbers, _, _ = numbers_of(alone, framework, objective)
    gradients = arrays_under(numbers)
    for number in range(DIRECTIONS):
        direction = random_direction(gradients, seed=number)
        before, after = (numbers[f"loss_beside/{number}/{sign}"].mean() for sign in (-1, 1))
        slope = sum(np.sum(gradients[name] * direction[name]) for name in gradients)
        assert slope == pytest.approx((after - before) / (2 * FINITE_STEP), rel=1e-6)


@each_case
def test_gradient_along_single_coordinates(alone, framework, case):
    """The reference's losses; `test_logits_and_loss` says that they are the twin's."""
    numbers, weights, sizes = numbers_of(alone, framework, case)
    random = np.random.default_rng(0)
    assert set(arrays_under(numbers)) == set(
        trained_shapes(small_point(framework, **FAMILIES.get(case, {"objective": case})))
    )
    for name, gradient in arrays_under(numbers).items():
        steepest = int(np.abs(gradient).argmax())
        for index in {steepest, *random.integers(gradient.size, size=COORDINATES).tolist()}:
            losses = []
            for sign in (-1, 1):
                moved = weights[name].copy()
                moved.flat[index] += sign * FINITE_STEP
                beside = {**weights, name: moved}
                losses.append(reference_loss(beside, numbers["inputs"], numbers["targets"], **sizes))
            slope = (losses[1] - losses[0]) / (2 * FINITE_STEP)
            assert gradient.flat[index] == pytest.approx(slope, abs=1e-6 * np.abs(gradient).max()), (name, index)


def test_two_updates(alone, framework):
    """Clipping, learning rate, bias correction, epsilon outside the root, decay of matrices and of nothing else."""
    numbers, weights = alone[framework, "float64"], lively_weights(POINT)
    steps = [arrays_under(numbers, f"step{step}/gradient/") for step in range(2)]
    norms = [np.sqrt(sum(np.sum(value**2) for value in gradients.values())) for gradients in steps]
    for step, norm in enumerate(norms):
        assert numbers[f"step{step}/gradient_norm"] == pytest.approx(norm, rel=1e-12)
        assert norm > 2 * UPDATE_KNOBS["max_gradient_norm"]
    factors = [UPDATE_KNOBS["max_gradient_norm"] / (norm + 1e-6) for norm in norms]
    decayed = set()
    for name, value in weights.items():
        is_matrix = name == "token_embedding" or (value.ndim == 2 and name != "position_embedding")
        decayed |= {name} if is_matrix else set()
        expected = reference_updates(
            value,
            [gradients[name] * factor for gradients, factor in zip(steps, factors, strict=True)],
            [0.01, 0.02],
            weight_decay=0.1 if is_matrix else 0.0,
            beta1=0.9,
            beta2=0.95,
            epsilon=UPDATE_KNOBS["epsilon"],
        )
        for step in range(2):
            after = numbers[f"step{step}/after/{name}"]
            np.testing.assert_allclose(after, expected[step], rtol=1e-12, atol=1e-12, err_msg=name)
    assert decayed == {name for name in weights if is_decayed(name)}


def test_a_step_that_overflows_leaves_no_trace(alone, framework):
    numbers = alone[framework, "overflow"]
    assert numbers["skipped/flag"] and not numbers["sound/flag"]
    for name in arrays_under(numbers, "initial/"):
        assert np.array_equal(numbers[f"skipped/{name}"], numbers[f"initial/{name}"]), name
        assert np.array_equal(numbers[f"sound/{name}"], numbers[f"fresh/{name}"]), name
        assert not np.array_equal(numbers[f"sound/{name}"], numbers[f"initial/{name}"]), name
