"""The comparison turns red when one twin is wrong."""

from __future__ import annotations

import json

import pytest

from hvbench.parity.compare import compare_traces
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.points import BROKEN, MISTAKES, broken_point, configured_point, small_tolerances

SOUND = next(name for name in FRAMEWORKS if name != BROKEN)


def red_kinds(deviations) -> set[str]:
    """Which kinds of quantities lie outside their tolerance."""
    return {each.name.removeprefix("rank0/").partition("/")[0] for each in deviations if not each.is_within}


@pytest.mark.parametrize(("configuration", "knobs"), MISTAKES, ids=json.dumps)
def test_a_wrong_knob(traced, configuration, knobs):
    broken = traced[broken_point(knobs, configuration)]
    parity = compare_points(broken, traced[configured_point(SOUND, configuration)])
    assert not parity.is_proven
    assert "update_length" in red_kinds(parity.deviations)
    assert not {"logits", "gradient"} & red_kinds(parity.deviations)  # before the first update all is well


def test_gradients_not_divided_by_the_accumulation_steps(traced, alone):
    sound = traced[configured_point(SOUND, (1, "fp32", "none"))].ranks[0]
    deviations = compare_traces(alone[BROKEN, "undivided"], sound, tolerances=small_tolerances("fp32", "none"))
    assert {"gradient", "gradient_norm"} <= red_kinds(deviations)


def test_weight_decay_on_biases(traced, alone):
    sound = traced[configured_point(SOUND, (1, "fp32", "none"))].ranks[0]
    deviations = compare_traces(alone[BROKEN, "decayed_biases"], sound, tolerances=small_tolerances("fp32", "none"))
    red = {each.name for each in deviations if not each.is_within}
    biases = {name for name in sound if name.startswith("update/") and name.endswith(".bias")}
    assert biases <= red
    assert not any(name.startswith("gradient/") for name in red)


def test_wrong_precision_or_compression(traced):
    for wrong, right in [("bf16", "fp32"), ("fp16", "fp32"), ("bf16", "fp16")]:
        broken = traced[configured_point(BROKEN, (1, wrong, "none"))]
        parity = compare_points(broken, traced[configured_point(SOUND, (1, right, "none"))])
        assert "gradient" in red_kinds(parity.deviations), (wrong, right)
    broken = traced[configured_point(BROKEN, (2, "fp32", "fp16"))]
    parity = compare_points(broken, traced[configured_point(SOUND, (2, "fp32", "none"))])
    assert "gradient" in red_kinds(parity.deviations)
