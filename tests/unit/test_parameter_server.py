"""The server's updates against the float64 reference, and the messages between it and the ranks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from hvbench.frameworks.parameter_server import AVERAGE, UPDATE, Server
from hvbench.spec.point import Point
from hvbench.training.weights import initial_weights, is_decayed, parameter_shapes
from tests.parity.reference import reference_updates

POINT = Point(
    model="tiny", num_layers=1, num_heads=2, hidden_size=8, sequence_length=6, strategy="parameter_server",
    max_gradient_norm=0.5, epsilon=1e-3, weight_decay=0.1,
)  # fmt: skip
RATES = [0.01, 0.02, 0.015]


def make_server(**changes: object) -> Server:
    return Server(POINT.model_copy(update=changes), SimpleNamespace())


def split(vector: np.ndarray) -> dict[str, np.ndarray]:
    arrays, begin = {}, 0
    for name, shape in parameter_shapes(POINT).items():
        arrays[name] = vector[begin : begin + math.prod(shape)].reshape(shape)
        begin += math.prod(shape)
    return arrays


def test_the_server_starts_from_the_initial_weights_of_the_ranks() -> None:
    for name, value in initial_weights(POINT).items():
        assert np.array_equal(split(make_server().parameters)[name], value), name


def test_updates_are_adamw_with_clipping() -> None:
    server, random = make_server(), np.random.default_rng(5)
    gradients = [random.standard_normal(server.parameters.size).astype(np.float32) for _ in RATES]
    norms = [
        server.update(gradient.copy(), learning_rate=rate, loss_scale=1.0)
        for gradient, rate in zip(gradients, RATES, strict=True)
    ]
    clipped = []
    for gradient, (norm, skipped) in zip(gradients, norms, strict=True):
        length = np.linalg.norm(gradient.astype(np.float64))
        assert norm == pytest.approx(length, rel=1e-5) and not skipped
        clipped.append(split(gradient.astype(np.float64) * POINT.max_gradient_norm / (length + 1e-6)))
    start, values = initial_weights(POINT, dtype="float64"), split(server.parameters)
    for name, begin in start.items():
        expected = reference_updates(
            begin, [each[name] for each in clipped], RATES, weight_decay=POINT.weight_decay if is_decayed(name) else 0.0,
            beta1=POINT.beta1, beta2=POINT.beta2, epsilon=POINT.epsilon,
        )  # fmt: skip
        assert np.linalg.norm(values[name] - expected[-1]) < 1e-5 * np.linalg.norm(expected[-1] - begin), name


def test_a_loss_scale_cancels_and_an_overflow_drops_the_update() -> None:
    random = np.random.default_rng(6)
    plain, scaled = make_server(precision="fp16"), make_server(precision="fp16")
    gradient = random.standard_normal(plain.parameters.size).astype(np.float32)
    plain.update(gradient.copy(), learning_rate=0.01, loss_scale=1.0)
    scaled.update(gradient * np.float32(1024), learning_rate=0.01, loss_scale=1024.0)
    np.testing.assert_allclose(plain.parameters, scaled.parameters, rtol=1e-6)
    before = scaled.parameters.copy()
    gradient[3] = np.inf
    norm, skipped = scaled.update(gradient, learning_rate=0.01, loss_scale=1024.0)
    assert skipped and not math.isfinite(norm) and np.array_equal(scaled.parameters, before) and scaled.updates == 1


def test_an_average_changes_nothing_and_an_update_answers_with_the_parameters() -> None:
    server = make_server()
    gradient = np.ones_like(server.parameters)
    _, vector = server._answer(np.array([AVERAGE, 0.0, 1.0]), gradient)
    assert vector is gradient and server.updates == 0
    (norm, skipped), vector = server._answer(np.array([UPDATE, 0.01, 1.0]), gradient)
    assert norm == pytest.approx(math.sqrt(gradient.size)) and not skipped
    assert vector is server.parameters and server.updates == 1
