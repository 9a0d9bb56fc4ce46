"""The servers' updates against the float64 references, who owns which tensor, staleness and its bound, and states that go in and out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hvbench.frameworks.numpy_norms import measure_norms
from hvbench.frameworks.parameter_server import UPDATE, Server, place_tensors
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.optimizer import OPTIMIZERS
from hvbench.spec.point import Point
from hvbench.training.optimizers import is_adapted
from hvbench.training.weights import initial_weights, is_decayed, trained_shapes
from tests.parity.reference import reference_updates
from tests.parity.reference_optimizers import (
    reference_adafactor,
    reference_lamb,
    reference_lars,
    reference_sgd,
)

POINT = Point(
    model="tiny", num_layers=1, num_heads=2, hidden_size=8, sequence_length=6, strategy="parameter_server",
    max_gradient_norm=0.5, epsilon=1e-3, weight_decay=0.1, world_size=2,
)  # fmt: skip
RATES = [0.01, 0.02, 0.015]


def make_server(*, place: int = 0, servers: int = 1, **changes: Any) -> Server:
    """A server that holds the initial weights."""
    point = POINT.model_copy(update={"servers": servers, **changes})
    server = Server(point, SimpleNamespace(), place=place, servers=servers)
    server.tensors.join(initial_weights(point), server.vector)
    return server


def update(server: Server, gradients: np.ndarray, *, rate: float = 0.01, scale: float = 1.0) -> tuple[float, bool]:
    squares = measure_norms([gradients])[0] ** 2
    return server.update(gradients.copy(), squares=squares, learning_rate=rate, loss_scale=scale)


def reference(name: str, value: np.ndarray, gradients: list[np.ndarray], point: Point) -> np.ndarray:
    decay = point.weight_decay if is_decayed(name) else 0.0
    adam = {"beta1": point.beta1, "beta2": point.beta2, "epsilon": point.epsilon}
    step = {"weight_decay": decay, "momentum": point.momentum}
    made = {
        "adamw": lambda: reference_updates(value, gradients, RATES, weight_decay=decay, **adam),
        "sgd": lambda: reference_sgd(value, gradients, RATES, **step),
        "lars": lambda: reference_lars(
            value, gradients, RATES, trust_coefficient=point.trust_coefficient, is_adapted=is_adapted(name), **step
        ),
        "lamb": lambda: reference_lamb(
            value, gradients, RATES, weight_decay=decay, is_adapted=is_adapted(name), **adam
        ),
        "adafactor": lambda: reference_adafactor(value, gradients, RATES, epsilon=point.epsilon, weight_decay=decay),
    }
    return made[point.optimizer]()[-1]


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_of_any_number_of_servers_are_the_papers_with_one_global_norm(optimizer: str, servers: int) -> None:
    point, random = POINT.model_copy(update={"optimizer": optimizer}), np.random.default_rng(5)
    parts = [make_server(place=place, servers=servers, optimizer=optimizer) for place in range(servers)]
    shapes = trained_shapes(point)
    assert sorted(name for part in parts for name in part.parameters) == sorted(shapes), "each tensor has one server"
    steps = [{name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in RATES]
    clipped = []
    for gradients, rate in zip(steps, RATES, strict=True):
        squares = sum(norm**2 for norm in measure_norms(list(gradients.values())))
        length = math.sqrt(sum(float(np.square(value.astype(np.float64)).sum()) for value in gradients.values()))
        for part in parts:
            vector = np.empty_like(part.vector)
            part.tensors.join(gradients, vector)
            norm, skipped = part.update(vector, squares=squares, learning_rate=rate, loss_scale=1.0)
            assert norm == pytest.approx(length, rel=1e-9) and not skipped
        factor = point.max_gradient_norm / (length + 1e-6)
        clipped.append({name: value.astype(np.float64) * factor for name, value in gradients.items()})
    start = initial_weights(point, dtype="float64")
    for part in parts:
        for name, value in part.parameters.items():
            expected = reference(name, start[name], [each[name] for each in clipped], point)
            rounding = len(RATES) * 2.0**-24 * np.linalg.norm(expected)  # half a unit of each float32 value and update
            assert np.linalg.norm(value - expected) < 1e-5 * np.linalg.norm(expected - start[name]) + rounding, name


def test_a_loss_scale_cancels_and_an_overflow_drops_the_update() -> None:
    random = np.random.default_rng(6)
    plain, scaled = make_server(precision="fp16"), make_server(precision="fp16")
    gradient = random.standard_normal(plain.vector.size).astype(np.float32)
    update(plain, gradient)
    update(scaled, gradient * np.float32(1024), scale=1024.0)
    np.testing.assert_allclose(plain.vector, scaled.vector, rtol=1e-6)
    before = scaled.vector.copy()
    gradient[3] = np.inf
    norm, skipped = update(scaled, gradient, scale=1024.0)
    assert skipped and not math.isfinite(norm) and np.array_equal(scaled.vector, before)
    assert scaled.optimizer.updates == 1


def test_one_more_server_takes_tensors_from_the_others_and_moves_none_between_them() -> None:
    point = POINT.model_copy(update={"num_layers": 6})
    for servers in (1, 2, 3):
        before, after = (place_tensors(point, servers=count) for count in (servers, servers + 1))
        for place in range(servers):
            assert set(after[place].shapes) <= set(before[place].shapes)
        assert after[servers].shapes, "and the new one has some"


def start(*, bound: int | None, ranks: int = 3) -> Server:
    server = make_server(strategy="parameter_server_async", staleness_bound=bound)
    server.left = set(range(ranks))
    server.pulled, server.pushed = dict.fromkeys(range(ranks), 0), dict.fromkeys(range(ranks), 0.0)
    return server


def push(server: Server, rank: int, *, squares: float = 1.0, loss_scale: float = 1.0) -> tuple[int, list[int]]:
    """The staleness of a push, and the ranks that are answered after it, each of which has then pulled."""
    answer = server.push(rank, np.array([UPDATE, 0.01, loss_scale, squares]), np.ones_like(server.vector))
    server.waiting[rank] = answer
    ready = server.find_ready()
    for each in ready:
        server.waiting.pop(each)
        server.pulled[each] = server.optimizer.updates
    return int(answer[2]), ready


def test_staleness_counts_what_others_updated_since_the_parameters_were_pulled() -> None:
    server = start(bound=None)
    assert push(server, 0) == (0, [0])
    assert push(server, 0) == (0, [0]), "its own updates are none of others"
    assert push(server, 1) == (2, [1])
    assert push(server, 0) == (1, [0])
    assert push(server, 2) == (4, [2])
    assert push(server, 1) == (2, [1])


def test_a_rank_waits_while_it_is_more_than_the_bound_ahead_of_the_slowest() -> None:
    server = start(bound=1)
    assert push(server, 0)[1] == [0], "one update ahead of those that have none"
    assert push(server, 0)[1] == [], "not two"
    assert push(server, 1)[1] == [1], "rank 2 has none yet, so rank 0 still waits"
    assert push(server, 2)[1] == [0, 2], "now it goes on, with their updates"
    assert server.pulled[0] == 4 and push(server, 0)[1] == []
    server.left.discard(1)
    assert push(server, 2)[1] == [0, 2], "who has finished the point holds nobody back"
    everyone = start(bound=0)
    assert [push(everyone, rank)[1] for rank in range(3)] == [[], [], [0, 1, 2]], "with 0 all go on together"


def test_a_rank_that_has_diverged_keeps_nobody_waiting() -> None:
    server = start(bound=0, ranks=2)
    assert push(server, 0, squares=math.nan)[1] == [0]
    assert push(server, 1)[1] == [1] and push(server, 1)[1] == [1]
    fp16 = start(bound=0, ranks=2)
    fp16.point = fp16.point.model_copy(update={"precision": "fp16"})
    assert push(fp16, 0, squares=math.inf, loss_scale=1024.0)[1] == [], "an overflow is no divergence"
    assert push(fp16, 0, squares=math.inf, loss_scale=1.0)[1] == [0]


def test_what_a_server_keeps_is_joined_and_split_as_it_was() -> None:
    server, other = make_server(optimizer="adafactor"), make_server(optimizer="adafactor")
    update(server, np.ones_like(server.vector))
    slots = server.optimizer.state()
    kept = {f"parameters/{name}": value for name, value in server.parameters.items()} | slots
    vector = np.empty(server.tensors.kept_size, np.float32)
    server.tensors.join(kept, vector, kept=True)
    found = other.tensors.split(vector, kept=True)
    assert found.keys() | {"updates"} == kept.keys()
    assert all(np.array_equal(value, kept[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"servers": 12, "num_layers": 1}, None),
        ({"servers": 900, "num_layers": 1}, "servers = 900: 16 tensors train, and each is on one server"),
        ({"servers": 2, "strategy": "horovod"}, "servers = 2: the strategy is horovod, which has none"),
        (
            {"staleness_bound": 3},
            "staleness_bound: only of parameter_server_async, and the strategy is parameter_server",
        ),
        ({"staleness_bound": 3, "strategy": "parameter_server_async"}, None),
        ({"optimizer": "lamb"}, None),
    ],
)
def test_a_plan_refuses_what_no_server_does(changes: dict[str, Any], reason: str | None) -> None:
    assert (
        reason_to_skip(Point(model="tiny", **{"strategy": "parameter_server", "world_size": 2} | changes), world_size=2)
        == reason
    )
