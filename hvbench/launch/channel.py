"""The control channel: short JSON messages between rank 0 and every rank's agent, over authenticated TCP.

`multiprocessing.connection` frames and authenticates (HMAC); messages are JSON, so nothing is ever unpickled. A process
that dies closes its connection, so its end is known at once.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection

from hvbench.errors import Interrupted, LaunchError
from hvbench.launch.handshake import keep_alive, let_in
from hvbench.launch.messages import Hello, Lost, Message, read_message


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where rank 0 listens, and the secret that proves that a process belongs to this launch."""

    hosts: list[str]
    port: int
    secret: str

    def to_json(self) -> str:
        """Text for the launcher's key-value store, an environment variable or an MPI broadcast."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Address:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


class ConnectionClosed(ConnectionError):
    """The other end of the channel has closed it or died."""


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """Stands among the messages for a request to stop."""

    reason: str


class Hub:
    """Rank 0's end: every member's messages in one queue, as (rank, message); `Lost` for one whose connection closed."""

    def __init__(self, *, is_single_host: bool, backlog: int) -> None:
        self.secret = secrets.token_hex(16)
        bind = "127.0.0.1" if is_single_host else "0.0.0.0"
        self.listener = socket.create_server((bind, 0), backlog=max(backlog, 1))
        # A SimpleQueue, for its `put` is safe in a signal handler.
        self.inbox: queue.SimpleQueue[tuple[int, Message] | Interruption] = queue.SimpleQueue()
        self.connections: dict[int, Connection] = {}
        hosts = ["127.0.0.1"] if is_single_host else own_addresses()
        self.address = Address(hosts=hosts, port=self.listener.getsockname()[1], secret=self.secret)
        threading.Thread(target=self._accept, name="hvbench-accept", daemon=True).start()

    def send(self, rank: int, message: Message) -> None:
        """Send to one member; a member that is gone is reported through `receive`, not here."""
        try:
            send(self.connections[rank], message)
        except OSError:
            pass

    def receive(self, timeout_seconds: float) -> tuple[int, Message] | None:
        """The next message of any member, or None after `timeout_seconds`; raises Interrupted after `interrupt`."""
        try:
            received = self.inbox.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            return None
        if isinstance(received, Interruption):
            raise Interrupted(received.reason)
        return received

    def interrupt(self, reason: str) -> None:
        """Make `receive` raise Interrupted; may be called from a signal handler, so nothing else is interrupted half-way."""
        self.inbox.put(Interruption(reason=reason))

    def close(self) -> None:
        """Stop listening and hang up."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread that accepts
        self.listener.close()
        for connection in list(self.connections.values()):
            with contextlib.suppress(OSError), as_socket(connection) as stream:
                stream.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes; closing from here would not wake it

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self.listener.accept()
            except ConnectionError:
                continue  # gone again before it was let in
            except OSError:
                return  # closed
            connection = Connection(stream.detach())
            threading.Thread(target=self._listen, args=(connection,), name="hvbench-listen", daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        """Authenticate one connection (in its own thread: a silent stranger keeps nobody out), then take its messages.

        What does not authenticate, or sends anything but messages, is closed.
        """
        rank = None
        try:
            let_in(connection, self.secret)
            with as_socket(connection) as stream:
                keep_alive(stream)
            while True:
                message = receive(connection)
                if rank is None:
                    rank = member_rank(message)
                    self.connections[rank] = connection
                self.inbox.put((rank, message))
        except (EOFError, OSError, AuthenticationError, ValueError, TypeError):  # gone, or no agent of this launch
            connection.close()
            if rank is not None:
                self.inbox.put((rank, Lost()))


def member_rank(message: Message) -> int:
    """The rank that an agent's first message names; raises ValueError when it is not a Hello."""
    if not isinstance(message, Hello):
        raise ValueError(f"the first message is {message.kind}, not {Hello.kind}")
    return int(message.rank)


def connect(address: Address) -> Connection:
    """Connect to rank 0 by whichever of its addresses answers; raises LaunchError."""
    problems = []
    for host in address.hosts:
        try:
            connection = Client((host, address.port), authkey=address.secret.encode())
            with as_socket(connection) as stream:
                keep_alive(stream)
            return connection
        except (OSError, EOFError, AuthenticationError) as error:
            problems.append(f"{host}: {error}")
    raise LaunchError(f"rank 0 cannot be reached on port {address.port} ({'; '.join(problems)})")


@contextlib.contextmanager
def as_socket(connection: Connection) -> Iterator[socket.socket]:
    """The socket under a connection, which stays open."""
    stream = socket.socket(fileno=connection.fileno())
    try:
        yield stream
    finally:
        stream.detach()


def send(connection: Connection, message: Message) -> None:
    """Send one message; raises ConnectionClosed."""
    content = json.dumps(message.to_json()).encode()
    try:
        connection.send_bytes(content)
    except (OSError, EOFError) as error:
        raise ConnectionClosed(str(error)) from None


def receive(connection: Connection) -> Message:
    """Wait for one message; raises ConnectionClosed when none will come, ValueError when what comes is none."""
    try:
        content = connection.recv_bytes()
    except (OSError, EOFError) as error:
        raise ConnectionClosed(str(error)) from None
    return read_message(json.loads(content))


def own_addresses() -> list[str]:
    """IPv4 addresses by which other hosts may reach this one, loopback last."""
    import psutil

    addresses = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    return sorted(addresses, key=lambda address: address.startswith("127."))
