"""The control channel: short JSON messages between rank 0 and every rank's agent, over authenticated TCP.

`multiprocessing.connection` frames and authenticates (HMAC); messages are JSON, so nothing is ever unpickled. A peer
that dies closes its connection, so its end is known at once.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from hvbench.errors import LaunchError

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where rank 0 listens, and the secret that proves a peer belongs to this launch."""

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


class Hub:
    """Rank 0's end: every member's messages in one queue, as (rank, message); a lost member says `{"type": "lost"}`."""

    def __init__(self, *, is_single_host: bool, backlog: int) -> None:
        self.secret = secrets.token_hex(16)
        bind = "127.0.0.1" if is_single_host else "0.0.0.0"
        self.listener = Listener((bind, 0), backlog=max(backlog, 1), authkey=self.secret.encode())
        self.inbox: queue.Queue[tuple[int, Message]] = queue.Queue()
        self.connections: dict[int, Connection] = {}
        hosts = ["127.0.0.1"] if is_single_host else own_addresses()
        self.address = Address(hosts=hosts, port=self.listener.address[1], secret=self.secret)
        threading.Thread(target=self._accept, name="hvbench-accept", daemon=True).start()

    def send(self, rank: int, message: Message) -> None:
        """Send to one member; a member that is gone is reported through `receive`, not here."""
        try:
            send(self.connections[rank], message)
        except OSError:
            pass

    def receive(self, timeout_seconds: float) -> tuple[int, Message] | None:
        """The next message of any member, or None after `timeout_seconds`."""
        try:
            return self.inbox.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop listening and hang up."""
        self.listener.close()
        for connection in self.connections.values():
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self.listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                continue  # somebody else knocked
            except OSError:
                return  # closed
            threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        rank = None
        try:
            while True:
                message = receive(connection)
                if rank is None:
                    rank = int(message["rank"])
                    self.connections[rank] = connection
                self.inbox.put((rank, message))
        except (EOFError, OSError):
            if rank is not None:
                self.inbox.put((rank, {"type": "lost"}))


def connect(address: Address) -> Connection:
    """Connect to rank 0 by whichever of its addresses answers; raises LaunchError."""
    problems = []
    for host in address.hosts:
        try:
            return Client((host, address.port), authkey=address.secret.encode())
        except (OSError, EOFError, AuthenticationError) as error:
            problems.append(f"{host}: {error}")
    raise LaunchError(f"rank 0 cannot be reached on port {address.port} ({'; '.join(problems)})")


def send(connection: Connection, message: Message) -> None:
    """Send one message; raises OSError when the peer is gone."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Message:
    """Wait for one message; raises EOFError or OSError when the peer is gone."""
    return json.loads(connection.recv_bytes())


def own_addresses() -> list[str]:
    """IPv4 addresses by which other hosts may reach this one, loopback last."""
    import socket

    import psutil

    addresses = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    return sorted(addresses, key=lambda address: address.startswith("127."))
