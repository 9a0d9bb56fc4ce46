"""The comparison turns red when one twin is wrong."""

from __future__ import annotations

import json

import pytest

from hvbench.parity import TOLERANCES, compare_traces
from hvbench.spec import FRAMEWORKS
from hvbench.tracing import compare_points
from tests.parity.points import PRECISIONS, WRONG_KNOBS, broken_point, configured_point


def other(framework: str) -> str:
    """The twin of a twin."""
    return next(name for name in FRAMEWORKS if name != framework)


def red_kinds(deviations) -> set[str]:
    """Which kinds of quantities lie outside their tolerance."""
    return {each.name.removeprefix("rank0/").partition("/")[0] for each in deviations if not each.is_within}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("knobs", WRONG_KNOBS, ids=json.dumps)
def test_a_wrong_knob(traced, knobs, precision):
    broken = traced[broken_point("pytorch", knobs, precision=precision)]
    parity = compare_points(broken, traced[configured_point("tensorflow", (1, precision, "none"))])
    assert not parity.is_proven
    assert {"update_length", "update"} <= red_kinds(parity.deviations)
    assert not {"logits", "gradient"} & red_kinds(parity.deviations)  # before the first update all is well


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradients_not_divided_by_the_accumulation_steps(traced, alone, framework):
    sound = traced[configured_point(other(framework), (1, "fp32", "none"))].ranks[0]
    deviations = compare_traces(alone[framework, "undivided"], sound, tolerances=TOLERANCES["fp32", "none"])
    assert {"gradient", "gradient_norm"} <= red_kinds(deviations)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weight_decay_on_biases(traced, alone, framework):
    sound = traced[configured_point(other(framework), (1, "fp32", "none"))].ranks[0]
    deviations = compare_traces(alone[framework, "decayed_biases"], sound, tolerances=TOLERANCES["fp32", "none"])
    red = {each.name for each in deviations if not each.is_within}
    biases = {name for name in sound if name.startswith("update/") and name.endswith(".bias")}
    assert biases <= red
    assert not any(name.startswith("gradient/") for name in red)


def test_wrong_precision_or_compression(traced):
    for wrong, right in [("fp32", "bf16"), ("fp16", "bf16"), ("fp32", "fp16"), ("bf16", "fp16")]:
        broken = traced[configured_point("pytorch", (1, wrong, "none"))]
        parity = compare_points(broken, traced[configured_point("tensorflow", (1, right, "none"))])
        assert "gradient" in red_kinds(parity.deviations), (wrong, right)
    broken = traced[configured_point("pytorch", (2, "fp32", "fp16"))]
    parity = compare_points(broken, traced[configured_point("tensorflow", (2, "fp32", "none"))])
    assert "gradient" in red_kinds(parity.deviations)
