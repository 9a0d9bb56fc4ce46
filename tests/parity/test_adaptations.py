"""Adaptations: the twins train the same part, and nothing else moves, is sent or is multiplied for."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.frameworks.contract import Arrays
from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.training.adaptation import merge_low_rank, without_adaptation
from hvbench.training.flops import attention_flops_per_token, model_facts
from hvbench.training.products import model_products, total_flops
from hvbench.training.weights import parameter_shapes, trained_shapes
from tests.parity.alone import ADAPTED, lively_weights, small_point
from tests.parity.points import ADAPTATIONS, make_point
from tests.parity.test_families import make_model

SMALL = {"model": "tiny", "gemm": "default", "world_size": 1, "micro_batch_size": 2, "loss_chunk_tokens": 0}
each_point = pytest.mark.parametrize(("world_size", "knobs"), ADAPTATIONS, ids=str)


@each_point
def test_twins_agree(traced, world_size, knobs):
    points = [make_point(framework, world_size, **knobs) for framework in FRAMEWORKS]
    parity = compare_points(*(traced[point] for point in points))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@each_point
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_only_what_trains_moves_and_is_sent(traced, framework, world_size, knobs):
    """In 20 updates with weight decay no other parameter changes by one bit; bytes sent are those that were computed."""
    point = make_point(framework, world_size, **knobs)
    trace = traced[point].ranks[0]
    moved = {name.removeprefix("update/") for name in trace if name.startswith("update/") and trace[name].any()}
    assert moved == set(trained_shapes(point)) < set(parameter_shapes(point))
    sent = {name: value for name, value in trace.items() if name.startswith("gradient/")}
    assert {name.removeprefix("gradient/"): value.shape for name, value in sent.items()} == trained_shapes(point)
    if world_size > 1:
        assert sum(value.nbytes for value in sent.values()) == model_facts(point).allreduce_bytes_per_step
    norm = np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in sent.values()))
    assert trace["gradient_norm"][0] == pytest.approx(norm, rel=1e-5), "clipped by the norm of what trains"
    assert trace["loss"][-1] < trace["loss"][0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_prefixes_are_seen_by_all_positions_however_attention_is_cut(alone, framework):
    """In float64: the same losses and gradients from strips and kernels as in the textbook, and of both frameworks."""
    numbers, others = (alone[each, "prefixes"] for each in (framework, FRAMEWORKS[0]))
    for name, value in numbers.items():
        assert relative_error(value, numbers[name.replace("fused/", "plain/")]) < 1e-12, name
        assert relative_error(value, others[name]) < 1e-12, name


def weights_of(point: Point) -> Arrays:
    """Weights far from the initial ones."""
    weights = {name: value.astype("float32") for name, value in lively_weights(point).items()}
    return {name: value * (0.2 if value.ndim == 2 else 1.0) for name, value in weights.items()}


@pytest.mark.parametrize("knobs", [{}, {"model": "llama-tiny", "lora_targets": "linear"}], ids=str)
def test_merged_weights_are_the_same_model(knobs):
    import torch

    point = Point(**{**SMALL, "adaptation": "lora", "lora_rank": 4, **knobs})
    weights, tokens = weights_of(point), torch.arange(64).reshape(2, 32)
    plain = without_adaptation(point)
    merged = merge_low_rank(weights, point)
    assert merged.keys() == parameter_shapes(plain).keys()
    models = make_model(point, weights), make_model(plain, merged), make_model(plain, {n: weights[n] for n in merged})
    with torch.no_grad():
        own, of_merged, without = (model.logits(tokens).numpy() for model in models)
    assert relative_error(of_merged, own) < 1e-5 < 0.01 < relative_error(without, own)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ADAPTED)
def test_products_that_no_gradient_needs_are_not_computed(alone, framework, name):
    """Counted in what runs: FLOPs are those of the formula."""
    point = small_point(framework, **ADAPTED[name])
    tokens = point.micro_batch_size * point.sequence_length
    of_attention = attention_flops_per_token(point, point.sequence_length) * tokens
    assert alone[framework, "frozen"][name] == total_flops(model_products(point)) + of_attention


def test_what_is_recomputed_above_frozen_embeddings_has_the_same_gradients():
    """PyTorch saves other tensors where a block's input needs no gradient."""
    import torch

    kept, again = (
        make_model(point, weights_of(point))
        for point in (
            Point(**SMALL, adaptation="lora", lora_targets="linear", recompute=choice) for choice in ("none", "block")
        )
    )
    tokens = torch.arange(64).reshape(2, 32)
    for model in (kept, again):
        model.loss(tokens, tokens).backward()
    for name, parameter in kept.trained.items():
        assert torch.equal(parameter.grad, again.trained[name].grad), name


@pytest.mark.parametrize("model", ["tiny", "bert-tiny"])
def test_what_trains_has_the_gradients_that_it_has_where_all_does(model):
    """PyTorch, of enough tokens that norms sum in strips: gradients that are left out change no other."""
    import torch

    knobs = {**SMALL, "model": model, "micro_batch_size": 64}
    weights = weights_of(Point(**knobs))
    tokens = torch.from_numpy(np.random.default_rng(0).integers(256, size=(64, 32)))
    full = make_model(Point(**knobs), weights)
    full.loss(tokens, tokens).backward()
    for adaptation in ("bias", "last_layers"):
        part = make_model(Point(**knobs, adaptation=adaptation), weights)
        part.loss(tokens, tokens).backward()
        assert part.trained and all(
            torch.equal(value.grad, full.parameters[name].grad) for name, value in part.trained.items()
        )
