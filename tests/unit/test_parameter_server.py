"""The servers' updates against the float64 references, who owns which tensor, staleness and its bound, and states that go in and out."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from typing import Any

import numpy as np
import pytest

from hvbench.frameworks.numpy_norms import measure_norms
from hvbench.frameworks.parameter_server.frames import HEADER, Frame, Kind, Peer, PeerGone, only, take_all
from hvbench.frameworks.parameter_server.meeting import NUMBER, welcome
from hvbench.frameworks.parameter_server.server import Server
from hvbench.frameworks.parameter_server.service import Hub
from hvbench.frameworks.parameter_server.tensors import place_tensors
from hvbench.launch.handshake import as_connection, introduce
from hvbench.launch.servers import SECRET
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.optimizer import OPTIMIZERS
from hvbench.spec.point import Point
from hvbench.training.optimizers import is_adapted
from hvbench.training.weights import initial_weights, is_decayed, trained_shapes
from tests import patience
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


def make_server(*, place: int = 0, servers: int = 1, ranks: int = 2, **changes: Any) -> Server:
    """A server that holds the initial weights."""
    point = POINT.model_copy(update={"servers": servers, **changes})
    server = Server(point, world_size=ranks, place=place, servers=servers)
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
    return make_server(strategy="parameter_server_async", staleness_bound=bound, ranks=ranks)


def push(server: Server, rank: int, *, squares: float = 1.0, loss_scale: float = 1.0) -> tuple[int, list[int]]:
    """The staleness of a push, and the ranks that are answered after it, each of which has then pulled."""
    staleness = server.optimizer.updates - server.pulled[rank]
    request = Frame(kind=Kind.UPDATE, numbers=(0.01, loss_scale, squares), content=np.ones_like(server.vector))
    answers = server.handle(rank, request)
    own = [answer.frame.numbers[2] for answer in answers if answer.rank == rank]
    assert own in ([], [staleness]), "it says so"
    assert all(server.pulled[answer.rank] == server.optimizer.updates for answer in answers)
    return staleness, [answer.rank for answer in answers]


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
    assert server.handle(1, Frame(kind=Kind.LEAVE)) == []
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


def test_a_server_that_waits_sums_in_rank_order_whoever_comes_first_and_answers_all_at_once() -> None:
    random = np.random.default_rng(7)
    gradients = [random.standard_normal(make_server().vector.size).astype(np.float32) for _ in range(3)]
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        server = make_server(ranks=3)
        answers = [server.handle(rank, Frame(kind=Kind.AVERAGE, content=gradients[rank].copy())) for rank in order]
        assert [len(each) for each in answers] == [0, 0, 3]
        found.append(answers[-1][0].frame.content.copy())
    expected = (gradients[0] + gradients[1] + gradients[2]) / np.float32(3)
    assert np.array_equal(found[0], expected) and np.array_equal(found[1], expected)


def test_ranks_that_do_not_ask_for_the_same_are_told_so() -> None:
    server = make_server()
    server.handle(0, Frame(kind=Kind.AVERAGE, content=np.ones_like(server.vector)))
    with pytest.raises(ValueError, match="the ranks do not ask for the same"):
        server.handle(1, Frame(kind=Kind.UPDATE, content=np.ones_like(server.vector)))
    with pytest.raises(ValueError, match="rank 1 sent a SUM within a point"):
        server.handle(1, Frame(kind=Kind.SUM))


# Frames on real connections


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other:
            yield one, other


def test_an_array_that_no_buffer_holds_arrives_whole_while_the_sender_changes_it(pair: tuple) -> None:
    sent = np.arange(4_000_000, dtype=np.float32)
    room = np.empty_like(sent)
    sender, receiver = Peer(pair[0], name="a", room=only(room)), Peer(pair[1], name="b", room=only(room))
    sender.put(Frame(kind=Kind.UPDATE, numbers=(0.5, 2.0, -1.0), content=sent))
    assert sender.is_sending, "the kernel does not take 16 MB"
    sender.copy_unsent()
    expected, sent[:] = sent.copy(), -1.0
    thread = threading.Thread(target=lambda: [sender.send() for _ in iter(lambda: sender.is_sending, False)])
    thread.start()
    (frame,) = take_all([receiver])
    thread.join()
    assert (frame.kind, frame.numbers) == (Kind.UPDATE, (0.5, 2.0, -1.0))
    assert np.array_equal(room, expected)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER.pack(Kind.UPDATE, 12, 0.0, 0.0, 0.0), "b sent what is not due: UPDATE with 12 bytes, where 8 are due"),
        (HEADER.pack(99, 8, 0.0, 0.0, 0.0), "b sent what is not due: 99 is not a valid Kind"),
        (b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n", "b sent what is not due: 71 is not a valid Kind"),
    ],
)  # fmt: skip
def test_what_is_no_frame_that_is_due_is_refused(pair: tuple, header: bytes, line: str) -> None:
    peer = Peer(pair[0], name="b", room=only(np.empty(2, np.float32)))
    pair[1].sendall(header)
    with pytest.raises(ValueError, match=line):
        take_all([peer])


def test_a_peer_that_ends_in_the_middle_of_a_frame_is_gone(pair: tuple) -> None:
    peer = Peer(pair[0], name="rank 1", room=only(np.empty(2, np.float32)))
    pair[1].sendall(HEADER.pack(Kind.UPDATE, 8, 0.0, 0.0, 0.0) + b"abc")
    pair[1].close()
    with pytest.raises(PeerGone, match="rank 1 is gone"):
        take_all([peer])


def test_servers_add_up_in_their_order_and_all_get_the_same_sum(pair: tuple) -> None:
    nothing = only(np.empty(0, np.uint8))
    first, second = (
        Hub([Peer(stream, name="other", room=nothing)], is_first=is_first)
        for stream, is_first in zip(pair, (True, False), strict=True)
    )
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(second.sum(0.2)))
    thread.start()
    assert first.sum(0.1) == 0.1 + 0.2
    thread.join()
    assert found == [0.1 + 0.2]


def test_strangers_are_turned_away_and_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "right")

    def come(secret: str, number: int) -> None:
        came.append(socket.create_connection(address))
        with as_connection(came[-1]) as connection:
            introduce(connection, secret)
            connection.send_bytes(NUMBER.pack(number))

    came: list[socket.socket] = []
    found: dict[int, socket.socket] = {}
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    thread = threading.Thread(target=lambda: found.update(welcome(listener, wanted={0, 2})))
    thread.start()
    with socket.create_connection(address), socket.create_connection(address) as loud:  # the first is silent
        loud.sendall(b"\x00\x00\xff\xffhello" * 100)
        with pytest.raises((AuthenticationError, OSError, EOFError)):
            come("wrong", 0)
        for number in (7, 0, 0, 2):
            come("right", number)
        thread.join(timeout=patience.SECONDS)
    assert sorted(found) == [0, 2], "the right ones, and none twice"
    with pytest.raises(ConnectionError):
        socket.create_connection(address)
    for stream in (*came, *found.values()):
        stream.close()


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
