"""The control channel over real sockets: only JSON, only members, and nobody leaves unnoticed."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from hvbench.errors import LaunchError
from hvbench.launch.channel import Address, Hub, connect, own_addresses, receive, send
from hvbench.launch.messages import Broken, Hello, Lost, Progress, Result, Stop, Stopped

SECONDS = 20.0
STILL_HERE = Broken(message="still here")


def hello(rank: int) -> Hello:
    return Hello(rank=rank, host="a", pid=1, cores=[0], cgroup_cpu_quota=None)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(is_single_host=True, backlog=4)
    yield hub
    hub.close()


@pytest.fixture
def members(hub: Hub) -> Iterator[list[Connection]]:
    """Two members that have said hello."""
    connections = [connect(hub.address) for _ in range(2)]
    for rank, connection in enumerate(connections):
        send(connection, hello(rank))
    received = dict(hub.receive(SECONDS) for _ in connections)
    assert received == {rank: hello(rank) for rank in range(2)}
    yield connections
    for connection in connections:
        connection.close()


def test_an_address_survives_the_text_that_carries_it(hub: Hub) -> None:
    assert Address.from_json(hub.address.to_json()) == hub.address


def test_messages_arrive_with_the_rank_of_their_sender(hub: Hub, members: list[Connection]) -> None:
    progress = Progress(generation=2, rank=1, index=0, phase="größer", loss=None)
    send(members[1], progress)
    assert hub.receive(SECONDS) == (1, progress)


def test_messages_go_to_one_member(hub: Hub, members: list[Connection]) -> None:
    hub.send(1, Stop(generation=3))
    assert receive(members[1]) == Stop(generation=3)
    assert not members[0].poll(0)


def test_a_large_message_arrives_whole(hub: Hub, members: list[Connection]) -> None:
    samples = Result(generation=0, rank=0, index=0, result={"samples": list(range(200_000))})
    send(members[0], samples)
    assert hub.receive(SECONDS) == (0, samples)


def test_messages_of_one_member_keep_their_order(hub: Hub, members: list[Connection]) -> None:
    for number in range(100):
        send(members[0], Stopped(generation=number))
    assert [hub.receive(SECONDS)[1].generation for _ in range(100)] == list(range(100))


def test_silence_is_none_after_the_time_given(hub: Hub) -> None:
    assert hub.receive(0.01) is None
    assert hub.receive(-1.0) is None


def test_a_member_that_is_gone_is_reported_at_once(hub: Hub, members: list[Connection]) -> None:
    members[1].close()
    assert hub.receive(SECONDS) == (1, Lost())


def test_what_a_member_said_before_it_left_is_heard_first(hub: Hub, members: list[Connection]) -> None:
    send(members[1], Stopped(generation=0))
    members[1].close()
    assert [hub.receive(SECONDS)[1] for _ in range(2)] == [Stopped(generation=0), Lost()]


def test_sending_to_a_member_that_is_gone_is_no_error(hub: Hub, members: list[Connection]) -> None:
    members[1].close()
    assert hub.receive(SECONDS) == (1, Lost())
    for _ in range(3):
        hub.send(1, Stop(generation=0))


def test_a_peer_without_the_secret_is_turned_away_and_the_members_go_on(hub: Hub, members: list[Connection]) -> None:
    with pytest.raises(LaunchError, match=f"rank 0 cannot be reached on port {hub.address.port}"):
        connect(replace(hub.address, secret="wrong"))
    assert hub.receive(0.1) is None
    send(members[0], STILL_HERE)
    assert hub.receive(SECONDS) == (0, STILL_HERE)


def join(hub: Hub, *, rank: int) -> bool:
    """Whether a member can join."""
    connections: list[Connection] = []

    def say_hello() -> None:
        with contextlib.suppress(LaunchError, OSError, EOFError):
            connections.append(connect(hub.address))
            send(connections[-1], hello(rank))

    thread = threading.Thread(target=say_hello, daemon=True)
    thread.start()
    received = hub.receive(SECONDS)
    if received:
        thread.join()
        connections[0].close()
    return received == (rank, hello(rank))


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x08whatever",
        pytest.param(b"GET / HTTP/1.1\r\n\r\n"),
        pytest.param(b"\xff" * 64),
    ],
)
def test_a_stranger_who_hangs_up_does_not_close_the_door(hub: Hub, greeting: bytes) -> None:
    with socket.create_connection((hub.address.hosts[0], hub.address.port)) as stranger:
        stranger.sendall(greeting)
    assert join(hub, rank=0)


def test_a_stranger_who_stays_and_keeps_silent_does_not_block_the_door(hub: Hub) -> None:
    with socket.create_connection((hub.address.hosts[0], hub.address.port)):
        assert join(hub, rank=0)


def test_somebody_who_never_says_hello_is_never_a_member(hub: Hub) -> None:
    connect(hub.address).close()
    assert hub.receive(0.2) is None


def test_every_launch_has_a_secret_of_its_own(hub: Hub) -> None:
    other = Hub(is_single_host=True, backlog=1)
    assert other.secret != hub.secret and len(hub.secret) == 32
    other.close()


def test_one_host_is_served_on_loopback_alone(hub: Hub) -> None:
    assert hub.address.hosts == ["127.0.0.1"]
    assert hub.listener.getsockname()[0] == "127.0.0.1"


def test_several_hosts_are_offered_every_address_loopback_last() -> None:
    addresses = own_addresses()
    assert addresses[-1].startswith("127.")
    assert [address.startswith("127.") for address in addresses] == sorted(
        address.startswith("127.") for address in addresses
    )


def test_a_member_tries_every_address_until_one_answers(hub: Hub) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.2", 0))  # bound, not listening: refused
        connection = connect(replace(hub.address, hosts=["127.0.0.2", "127.0.0.1"]))
    connection.close()


def test_when_no_address_answers_the_error_names_them_all(hub: Hub) -> None:
    with pytest.raises(LaunchError) as caught:
        connect(replace(hub.address, hosts=["127.0.0.2", "127.0.0.3"]))
    message = str(caught.value)
    assert message.startswith(f"rank 0 cannot be reached on port {hub.address.port} (127.0.0.2: ")
    assert "; 127.0.0.3: " in message and message.isprintable()


class Tripwire:
    """Unpickling one calls `sprung`."""

    def __reduce__(self) -> tuple:
        return (sprung, ())


def sprung() -> None:
    raise AssertionError("a message was unpickled")


def test_a_pickle_is_never_opened() -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        theirs.send_bytes(pickle.dumps(Tripwire()))
        with pytest.raises(ValueError):  # not JSON
            receive(ours)


def test_a_message_that_json_cannot_hold_is_a_defect_here_and_not_a_riddle_there() -> None:
    ours, theirs = Pipe()
    with ours, theirs, pytest.raises(TypeError):
        send(ours, Broken(message=object()))


def test_closing_the_hub_hangs_up_on_every_member_and_lets_nobody_in(hub: Hub, members: list[Connection]) -> None:
    hub.close()
    for connection in members:
        assert connection.poll(SECONDS)
        with pytest.raises((EOFError, OSError)):
            receive(connection)
    with pytest.raises(LaunchError):
        connect(hub.address)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff not JSON",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'{"type": "nonsense"}',
        b'{"type": ["list"]}',
        b'{"type": "stopped"}',  # a field is missing
        b'{"type": "stopped", "generation": 0, "more": 1}',
        b'{"type": "exited", "generation": 0, "rank": 0, "returncode": 1, "failure": null}',
        b'{"type": "exited", "generation": 0, "rank": 0, "returncode": 1, "failure": {"status": "great", "message": ""}}',
        b'{"type": "start", "generation": 0, "logs": "", "token": "", "environment": {}, "workers": [3]}',
        b'{"type": "lost"}',  # what only this end may put among the messages
    ],
)
def test_a_member_that_babbles_is_lost_and_the_others_go_on(
    hub: Hub, members: list[Connection], content: bytes
) -> None:
    members[0].send_bytes(content)
    assert hub.receive(SECONDS) == (0, Lost())
    send(members[1], STILL_HERE)
    assert hub.receive(SECONDS) == (1, STILL_HERE)


def test_a_member_is_who_says_hello_first(hub: Hub) -> None:
    with connect(hub.address) as connection:
        send(connection, Stopped(generation=0))
        assert connection.poll(SECONDS), "hung up on"
    assert hub.receive(0.1) is None
