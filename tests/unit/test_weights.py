"""Canonical parameter names, shapes and initial values: what both twins start from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.spec.point import Point
from hvbench.training.weights import initial_weights, is_decayed, parameter_shapes

TINY = Point(model="tiny")  # 2 layers, width 32, vocabulary 256, sequence 32


def test_names_and_shapes_of_the_tiny_model() -> None:
    block = {
        "norm1.gain": (32,), "norm1.bias": (32,),
        "attention.qkv.weight": (32, 96), "attention.qkv.bias": (96,),
        "attention.out.weight": (32, 32), "attention.out.bias": (32,),
        "norm2.gain": (32,), "norm2.bias": (32,),
        "mlp.up.weight": (32, 128), "mlp.up.bias": (128,),
        "mlp.down.weight": (128, 32), "mlp.down.bias": (32,),
    }  # fmt: skip
    expected = {"token_embedding": (256, 32), "position_embedding": (32, 32)}
    for layer in range(2):
        expected |= {f"block{layer}.{name}": shape for name, shape in block.items()}
    expected |= {"final_norm.gain": (32,), "final_norm.bias": (32,)}
    assert list(parameter_shapes(TINY).items()) == list(expected.items())


def test_weights_have_the_canonical_names_order_and_shapes() -> None:
    weights = initial_weights(TINY)
    assert {name: value.shape for name, value in weights.items()} == parameter_shapes(TINY)
    assert list(weights) == list(parameter_shapes(TINY))
    assert {value.dtype for value in weights.values()} == {np.dtype("float32")}


def test_gains_are_one_and_biases_zero() -> None:
    for name, value in initial_weights(TINY).items():
        if name.endswith(".gain"):
            assert (value == 1).all(), name
        if name.endswith(".bias"):
            assert (value == 0).all(), name


def test_residual_projections_start_smaller_by_the_root_of_twice_the_layers() -> None:
    for name, value in initial_weights(Point(model="small")).items():
        if value.ndim < 2:
            continue
        is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
        expected = 0.02 / math.sqrt(2 * 4) if is_residual else 0.02  # small has 4 layers
        tolerance = 5 / math.sqrt(2 * value.size)  # 5 standard errors of a standard deviation
        assert np.std(value) == pytest.approx(expected, rel=tolerance), name


def test_weights_depend_only_on_the_seed_and_the_sizes() -> None:
    same = Point(model="tiny", framework="tensorflow", precision="bf16", micro_batch_size=1, world_size=2)
    other = Point(model="tiny", seed=1)
    reference, again, different = initial_weights(TINY), initial_weights(same), initial_weights(other)
    for name, value in reference.items():
        np.testing.assert_array_equal(value, again[name])
    assert not np.array_equal(reference["token_embedding"], different["token_embedding"])


def test_initial_weights_are_the_same_numbers_on_every_machine() -> None:
    first = initial_weights(TINY)["token_embedding"][0, :3].astype(np.float64)
    np.testing.assert_array_equal(first, np.array([0.022352440282702446, -0.027742497622966766, -0.008531431667506695]))


def test_float64_weights_hold_the_same_values() -> None:
    single, double = initial_weights(TINY), initial_weights(TINY, dtype="float64")
    for name, value in double.items():
        assert value.dtype == np.float64
        np.testing.assert_array_equal(value.astype(np.float32), single[name])


def test_only_weight_matrices_and_the_token_embedding_decay() -> None:
    decayed = {name.partition(".")[2] or name for name in parameter_shapes(TINY) if is_decayed(name)}
    assert decayed == {
        "token_embedding", "attention.qkv.weight", "attention.out.weight", "mlp.up.weight", "mlp.down.weight",
    }  # fmt: skip
