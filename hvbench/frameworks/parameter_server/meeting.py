"""How ranks and parameter servers connect: each server publishes its address in the launch's store, and who connects proves to know a secret.

The secret comes with the order by which an agent starts a process; no connection of ranks and servers carries it, and the launch's store, which
anybody may ask, does not have it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
from collections.abc import Collection
from multiprocessing import AuthenticationError

from hvbench.frameworks.parameter_server.frames import PeerGone
from hvbench.frameworks.ranks import find_address, own_address, publish_address
from hvbench.launch.handshake import as_connection, introduce, let_in
from hvbench.launch.servers import COUNT, SECRET

CONNECT_SECONDS = 30.0
LOOK_SECONDS = 0.05
NUMBER = struct.Struct("<I")


def count_servers() -> int:
    """How many servers this launch's ranks have."""
    return int(os.environ[COUNT])


def connect(server: int, *, number: int) -> socket.socket:
    """Connect process `number` (a rank, or a server behind the ranks) to a server; waits for its address.

    Raises PeerGone, TimeoutError where no address comes, AuthenticationError for one that is no server of this launch.
    """
    host, _, port = find_address(_key(server)).rpartition(":")
    name = f"parameter server {server} at {host}:{port}"
    try:
        stream = socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS)
        stream.settimeout(None)
        with as_connection(stream) as connection:
            introduce(connection, os.environ[SECRET])
            connection.send_bytes(NUMBER.pack(number))
    except AuthenticationError:
        raise AuthenticationError(f"{name} does not belong to this launch") from None
    except (OSError, EOFError) as error:
        raise PeerGone(f"{name} is gone: {error}") from None
    return stream


def open_door(server: int) -> socket.socket:
    """A listening socket of a server, whose address is published. It is reached by the network of the launch's store alone."""
    listener = socket.create_server((own_address(), 0), backlog=128)
    publish_address(_key(server), port=listener.getsockname()[1])
    return listener


def welcome(listener: socket.socket, *, wanted: Collection[int]) -> dict[int, socket.socket]:
    """Number -> connection of each process that is `wanted`, once all have come; then nobody is let in any more.

    A stranger, who does not know the secret or is not wanted, is turned away, and keeps nobody waiting while it is silent.
    """
    arrivals: queue.SimpleQueue[tuple[int, socket.socket]] = queue.SimpleQueue()
    found: dict[int, socket.socket] = {}
    listener.settimeout(LOOK_SECONDS)
    with listener:
        while len(found) < len(wanted):
            with contextlib.suppress(TimeoutError, ConnectionError):
                stream, _ = listener.accept()
                threading.Thread(target=_examine, args=(stream, arrivals), name="hvbench-door", daemon=True).start()
            with contextlib.suppress(queue.Empty):
                while True:
                    number, stream = arrivals.get_nowait()
                    if number in wanted and number not in found:
                        found[number] = stream
                    else:
                        stream.close()
    return found


def _examine(stream: socket.socket, arrivals: queue.SimpleQueue[tuple[int, socket.socket]]) -> None:
    """Put a connection among the arrivals when the other end has proved that it belongs to this launch, and said who it is."""
    try:
        with as_connection(stream) as connection:
            let_in(connection, os.environ[SECRET])
            (number,) = NUMBER.unpack(connection.recv_bytes(NUMBER.size))
    except (OSError, EOFError, AuthenticationError, struct.error):
        stream.close()
    else:
        arrivals.put((number, stream))


def _key(server: int) -> str:
    return f"server{server}"
