"""Both ends of a new TCP connection prove that they know a secret of the launch (HMAC), and let the kernel watch the other host."""

from __future__ import annotations

import os
import socket
import struct
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

# A connection whose other host has vanished counts as lost after idle + count x interval seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
ANSWER_SECONDS = 60


def let_in(connection: Connection, secret: str) -> None:
    """The end that listens: raises OSError, EOFError or AuthenticationError for one that does not belong to this launch."""
    deliver_challenge(connection, secret.encode())
    answer_challenge(connection, secret.encode())


def introduce(connection: Connection, secret: str) -> None:
    """The end that has connected, to one that lets it in; raises the same."""
    answer_challenge(connection, secret.encode())
    deliver_challenge(connection, secret.encode())


def as_connection(stream: socket.socket) -> Connection:
    """Messages on a blocking socket, which stays open when they are closed; the other end may take ANSWER_SECONDS for each."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_SECONDS, 0))
    return Connection(os.dup(stream.fileno()))


def keep_alive(stream: socket.socket) -> None:
    """Let the kernel check now and then whether the other host still exists."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not every system has every option
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
