"""All frameworks do the same work, every step and every tensor, at each world size, precision, compression."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.spec.numerics import PRECISIONS
from hvbench.training.weights import initial_weights, parameter_shapes
from tests.parity.points import (
    CONFIGURATIONS,
    OTHER_OBJECTIVES,
    STEPS,
    configured_point,
    onednn_point,
    other_point,
    small_tolerances,
)

each_configuration = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_other = pytest.mark.parametrize("other", FRAMEWORKS[1:])


@each_configuration
@each_other
def test_twins_agree(traced, other, configuration):
    parity = compare_points(
        *(traced[configured_point(framework, configuration)] for framework in (FRAMEWORKS[0], other))
    )
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize(("objective", "configuration"), OTHER_OBJECTIVES, ids=str)
def test_twins_agree_on_other_objectives(traced, objective, configuration):
    points = [other_point(framework, objective, configuration) for framework in FRAMEWORKS]
    parity = compare_points(*(traced[point] for point in points))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    trace = traced[points[0]].ranks[0]
    causal = traced[configured_point("pytorch", configuration)].ranks[0]
    if objective == "masked_lm":
        assert relative_error(trace["logits"], causal["logits"]) > 1e-2, "another input, and attention to both sides"
    else:
        assert trace["logits"].shape == (points[0].micro_batch_size, points[0].num_classes)
        assert trace["loss"][0] == pytest.approx(np.log(points[0].num_classes), rel=0.05)
    assert trace["loss"][-3:].mean() < trace["loss"][:3].mean() - 0.02


def test_onednn_does_the_same_work(traced):
    tensorflow = traced[configured_point("tensorflow", (1, "fp32", "none"))]
    assert compare_points(traced[onednn_point()], tensorflow).is_proven


def test_onednn_is_another_library():
    """By the operations that run: on some processors both libraries give the same bits."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from hvbench.frameworks.pytorch.model import Model

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            counts[str(function)] += 1
            return function(*args, **kwargs or {})

    point = onednn_point()
    layers = 4 * point.num_layers + 1  # the logits are one, too
    for gemm, expected in (("onednn", 3 * layers), ("default", 0)):
        counts = Counter()
        chosen = point.model_copy(update={"gemm": gemm})
        model = Model(chosen, initial_weights(chosen), precision=PRECISIONS["fp32"], device="cpu")
        tokens = torch.zeros((1, point.sequence_length), dtype=torch.int64)
        with Operations():
            model.loss(tokens, tokens).backward()
        assert counts["mkldnn._linear_pointwise.default"] == expected
        assert sum(counts[f"aten.{name}.default"] for name in ("mm", "addmm", "bmm")) == (0 if expected else 3 * layers)


@each_configuration
@each_other
def test_nothing_is_left_out_of_the_comparison(traced, other, configuration):
    points = [configured_point(framework, configuration) for framework in (FRAMEWORKS[0], other)]
    parameters = parameter_shapes(points[0])
    per_rank = {"logits", "skipped", "overflows"}
    per_rank |= {f"{name}/step{step}" for name in ("loss", "gradient_norm") for step in range(STEPS)}
    common = {"update_length"} | {f"{kind}/{name}" for kind in ("gradient", "update") for name in parameters}
    common |= {f"update/{name}:key" for name in parameters if name.endswith("qkv.bias")}
    expected = {f"rank{rank}/{name}" for rank in range(configuration[0]) for name in per_rank}
    expected |= {f"rank0/{name}" for name in common}  # that they are the same on all ranks, the digests say:
    for kind in ("gradients", "parameters"):
        expected |= {f"{framework}/ranks_with_other_{kind}" for framework in (FRAMEWORKS[0], other)}
    assert {deviation.name for deviation in compare_points(*(traced[point] for point in points)).deviations} == expected


@each_configuration
@each_framework
def test_training_trains(traced, framework, configuration):
    for trace in traced[configured_point(framework, configuration)].ranks.values():
        assert trace["loss"][0] == pytest.approx(np.log(256), rel=0.02)
        assert trace["loss"][-1] < trace["loss"][0] - 0.2
        assert all(np.abs(value).max() > 0 for name, value in trace.items() if name.startswith("update/"))


@each_configuration
@each_framework
def test_ranks_hold_identical_parameters(traced, framework, configuration):
    each = traced[configured_point(framework, configuration)]
    assert sorted(each.ranks) == list(range(configuration[0])) and len(each.digests) == configuration[0]
    assert all(digests == each.digests[0] for digests in each.digests)
    for name, value in each.ranks[0].items():
        if name in ("gradient_norm", "skipped", "overflows"):
            assert all(np.array_equal(value, trace[name]) for trace in each.ranks.values()), name


@pytest.mark.parametrize("compression", ["none", "fp16"])  # bf16's own rounding would hide that of the precision
@pytest.mark.parametrize(("precision", "unit_roundoff"), [("bf16", 2.0**-9), ("fp16", 2.0**-12)])
@each_framework
def test_low_precision_is_on_but_does_not_change_the_training(traced, framework, precision, unit_roundoff, compression):
    low = traced[configured_point(framework, (2, precision, compression))].ranks[0]
    full = traced[configured_point(framework, (2, "fp32", compression))].ranks[0]
    assert 0.5 * unit_roundoff < relative_error(low["logits"], full["logits"]) < 4 * unit_roundoff
    for name in (name for name in full if name.startswith("gradient/")):
        assert 0.1 * unit_roundoff < relative_error(low[name], full[name]) < 8 * unit_roundoff, name
    assert np.abs(low["loss"] / full["loss"] - 1).max() < unit_roundoff


def round_to_bf16(value: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest value with an 8-bit significand, ties to even."""
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("compression", "round_value", "coarsest"),
    [("fp16", lambda value: value.astype(np.float16).astype(np.float32), 2.0**-10), ("bf16", round_to_bf16, 2.0**-7)],
)
@each_framework
def test_compression_rounds_what_goes_over_the_wire(traced, framework, compression, round_value, coarsest):
    wire = traced[configured_point(framework, (2, "fp32", compression))].ranks[0]
    full = traced[configured_point(framework, (2, "fp32", "none"))].ranks[0]
    assert np.array_equal(wire["logits"], full["logits"])
    for name in (name for name in full if name.startswith("gradient/")):
        assert np.array_equal(wire[name], round_value(wire[name])), name
        assert coarsest / 100 < relative_error(wire[name], full[name]) < coarsest, name


def test_fp32_losses_agree_far_better_than_a_naive_pair():
    assert small_tolerances("fp32", "none").loss <= 1e-4 / 100


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_float32_is_ieee_in_both_frameworks_and_a_cpu_refuses_tf32(alone, framework):
    """TensorFlow starts with TF32 in products, PyTorch with TF32 in convolutions."""
    switches = alone[framework, "switches"]
    assert str(switches["before"]) == str(switches["after"]) == "off"
    assert str(switches["refusal"]).startswith("precision tf32: the device of this rank is cpu")
