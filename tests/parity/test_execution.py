"""What is compiled, recomputed or cut changes time and memory alone: losses, gradients and updates stay those of the same training without it."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.training.flops import recomputed_flops_per_token
from tests.parity.alone import ATTENTION_LENGTHS, DROPOUT, FINITE_STEP, RECOMPUTED, small_point
from tests.parity.points import EXECUTIONS, LONG_EXECUTIONS, long_point, split_point

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_execution = pytest.mark.parametrize(("split", "knobs"), EXECUTIONS, ids=str)
each_rate = pytest.mark.parametrize("rate", [0.0, DROPOUT])
each_part = pytest.mark.parametrize("recompute", RECOMPUTED[1:])


@each_execution
def test_twins_agree(traced, split, knobs):
    parity = compare_points(*(traced[split_point(framework, split, **knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@each_execution
@each_framework
def test_a_twin_agrees_with_itself_without_the_choice(traced, framework, split, knobs):
    parity = compare_points(traced[split_point(framework, split)], traced[split_point(framework, split, **knobs)])
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []


@pytest.mark.parametrize("knobs", LONG_EXECUTIONS, ids=str)
def test_twins_agree_on_a_longer_sequence(traced, knobs):
    parity = compare_points(*(traced[long_point(framework, **knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize("knobs", LONG_EXECUTIONS[1:], ids=str)
@each_framework
def test_a_twin_agrees_with_itself_on_a_longer_sequence(traced, framework, knobs):
    parity = compare_points(*(traced[long_point(framework, **each)] for each in (LONG_EXECUTIONS[0], knobs)))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []


@pytest.mark.parametrize("length", ATTENTION_LENGTHS)
@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm"])
@each_framework
def test_fused_attention_is_that_of_the_textbook_at_any_length(alone, framework, objective, length):
    """In float64; the last strip is shorter than the others."""
    numbers, name = alone[framework, "attention"], f"{objective}/0.0/{length}"
    fused = {key: value for key, value in numbers.items() if key.startswith(f"fused/{name}/")}
    assert len(fused) > 15
    for key, value in fused.items():
        assert relative_error(value, numbers[key.replace("fused", "plain", 1)]) < 1e-12, key


@pytest.mark.parametrize("length", ATTENTION_LENGTHS)
@each_framework
def test_gradients_with_dropout_are_those_of_the_loss_with_the_same_masks(alone, framework, length):
    """Against finite differences in float64: the backward pass of a strip draws its mask again."""
    numbers, name = alone[framework, "attention"], f"fused/causal_lm/{DROPOUT}/{length}"
    slope = (numbers[f"{name}/beside/1"] - numbers[f"{name}/beside/-1"]) / (2 * FINITE_STEP)
    assert slope == pytest.approx(float(numbers[f"{name}/slope"]), rel=1e-6)
    assert abs(numbers[f"{name}/loss"] - numbers[f"fused/causal_lm/0.0/{length}/loss"]) > 1e-3, "it drops"


@each_rate
@each_part
@each_framework
def test_recomputed_activations_are_those_of_the_forward_pass_dropout_included(alone, framework, recompute, rate):
    """In float64, and on two passes with masks of their own."""
    numbers = alone[framework, "recompute"]
    for name in (name for name in numbers if name.startswith(f"{recompute}/{rate}/") and not name.endswith("/flops")):
        usual = numbers[name.replace(recompute, "none", 1)]
        assert relative_error(numbers[name], usual) < 1e-12, name
    assert numbers[f"{recompute}/{rate}/forward"] == pytest.approx(
        float(numbers[f"{recompute}/{rate}/loss"]), rel=1e-12
    )


@each_framework
def test_dropout_drops_in_what_is_recomputed(alone, framework):
    numbers = alone[framework, "recompute"]
    assert abs(numbers[f"block/{DROPOUT}/loss"] - numbers["block/0.0/loss"]) > 1e-3


@each_rate
@each_part
@each_framework
def test_what_is_counted_as_recomputed_is_what_the_framework_multiplies_again(alone, framework, recompute, rate):
    """To the last operation: also that the last product of a block, whose result nobody reads, is left out."""
    numbers = alone[framework, "recompute"]
    more = numbers[f"{recompute}/{rate}/flops"] - numbers[f"none/{rate}/flops"]
    point: Point = small_point(framework, num_layers=2, dropout=rate, recompute=recompute)
    assert more == recomputed_flops_per_token(point) * point.micro_batch_size * point.sequence_length > 0
    assert np.isfinite(more)


@each_framework
def test_logits_in_chunks_are_those_of_all_tokens(alone, framework):
    """In float64, in chunks of which the last is smaller: losses, gradients and evaluations, with hidden tokens and rows of zeros."""
    numbers = alone[framework, "chunks"]
    whole = {name: value for name, value in numbers.items() if name.startswith("0/")}
    assert len(whole) > 30
    for name, value in whole.items():
        assert relative_error(numbers[name.replace("0/", "5/", 1)], value) < 1e-12, name


@each_framework
def test_rows_of_zeros_below_the_output_projection_change_no_number(alone, framework):
    numbers = alone[framework, "padding"]
    usual = {name.partition("/")[2]: value for name, value in numbers.items() if name.startswith("0/")}
    assert usual["logits"].shape == numbers["7/logits"].shape and usual.keys() > {"logits"}
    for name, value in usual.items():
        np.testing.assert_allclose(numbers[f"7/{name}"], value, rtol=1e-12, atol=1e-14, err_msg=name)
