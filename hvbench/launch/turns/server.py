"""Serves the turns of launches that live at the same time on a Unix socket: reads what ranks ask, and does what the scheduler decides.

`hvbench.worker.turns` is the other end and has the protocol; `hvbench.launch.turns.scheduler` decides. Processes
are suspended by SIGSTOP and resumed by SIGCONT, through a pidfd of the process at the other end of a connection; with it
rest those of its process group, if it leads one, as every worker does, and all that a script has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.io.surroundings import make_socket_folder
from hvbench.launch.turns.descendants import Descendants, find_supervisor
from hvbench.launch.turns.scheduler import (
    Answer,
    Decision,
    Leave,
    Meet,
    Request,
    Resume,
    Steps,
    Suspend,
    Turn,
    TurnLimits,
    TurnScheduler,
)

TICK_SECONDS = 0.5  # between ticks of the scheduler at most
MAX_LINE = 4096
SOCKET = "socket"


@dataclass(eq=False, kw_only=True)
class Connection:
    """The connection of one rank."""

    socket: socket.socket
    process: int | None  # its pidfd; None: never suspended
    group: int | None = None  # its process group where it leads one, and is no script's
    descendants: Descendants | None = None  # of its supervisor, where it is a script's: its loaders rest with it
    arm: str | None = None  # None until it has said so
    rank: int = 0
    received: bytes = b""
    is_suspended: bool = False

    def suspend(self, is_suspended: bool) -> None:
        """Suspend or resume its process, where that is possible and not done yet."""
        if self.process is None or self.is_suspended == is_suspended:
            return
        number = signal.SIGSTOP if is_suspended else signal.SIGCONT
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.process, number)
            self.is_suspended = is_suspended
            if self.group is not None:
                os.killpg(self.group, number)
        if self.descendants is not None and self.is_suspended == is_suspended:
            self.descendants.suspend() if is_suspended else self.descendants.resume()

    def answer(self, steps: int | None) -> None:
        """Let it continue."""
        with contextlib.suppress(OSError):  # it is gone; its end of the connection will say so
            self.socket.sendall(json.dumps({"steps": steps}).encode() + b"\n")

    def close(self) -> None:
        """Close the connection; the process, if it still lives, runs."""
        self.suspend(False)
        self.socket.close()
        if self.descendants is not None:
            self.descendants.close()
        if self.process is not None:
            os.close(self.process)


class TurnServer:
    """Serves the turns of the arms `names` from a thread of its own, from `__enter__` to `__exit__`."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        seed: Sequence[int] = (0,),
        limits: TurnLimits | None = None,
        measure_control: Callable[[], float] | None = None,
    ) -> None:
        self._limits = limits or TurnLimits()
        self._measure_control = measure_control  # seconds of what only the machine can change, at each turn's beginning
        shuffle = random.Random(repr(tuple(seed))).shuffle
        self._scheduler = TurnScheduler(names, shuffle=shuffle, limits=self._limits)
        self._lock = threading.Lock()  # of the scheduler
        self._connections: dict[tuple[str, int], Connection] = {}  # by arm and rank
        self._retired: list[str] = []
        self._folder = make_socket_folder("hvbench-turns-", name=SOCKET)
        self.path = self._folder / SOCKET
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._waker = socket.socketpair()
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, name="hvbench-turns", daemon=True)

    def __enter__(self) -> TurnServer:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        for own in (self._listener, self._wake):
            own.setblocking(False)
            self._selector.register(own, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._wake_up()
        self._thread.join()
        self._waker.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The arms."""
        return self._scheduler.names

    @property
    def turns(self) -> Sequence[Turn]:
        """Every turn so far, in order."""
        return self._scheduler.turns

    @property
    def given_up(self) -> str | None:
        """Why the arms take no turns any more; None while they do."""
        return self._scheduler.given_up

    def variable(self, arm: str) -> str:
        """What HVBENCH_TURNS says to the ranks of `arm`."""
        return f"{arm}:{self.path}"

    def retire(self, arm: str) -> None:
        """The launch of `arm` has ended: the others do not wait for it any more."""
        self._retired.append(arm)
        self._wake_up()

    def _wake_up(self) -> None:
        """Let the thread look around now; one that is about to end may have closed its side already."""
        with contextlib.suppress(OSError):
            self._waker.send(b".")

    @property
    def is_busy(self) -> bool:
        """Whether any arm is at a point that has begun."""
        with self._lock:
            return self._scheduler.is_busy

    def waited_seconds(self, arm: str) -> float:
        """For how long an arm has waited for others so far."""
        with self._lock:
            return self._scheduler.waited_seconds(arm, at=time.monotonic())

    def describe_wait(self, arm: str) -> str | None:
        """For what, and for whom, an arm waits now; None: it does not."""
        with self._lock:
            return self._scheduler.describe_wait(arm)

    def _serve(self) -> None:
        try:
            while not self._is_closing:
                ready = self._selector.select(timeout=TICK_SECONDS)
                with self._lock:
                    self._serve_ready(ready)
        finally:
            self._close()

    def _serve_ready(self, ready: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        """Do what those who have sent something ask, and what time asks."""
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake:
                os.read(self._wake.fileno(), 64)
            else:
                self._read(key.data)
        while self._retired:
            self._do(self._scheduler.retire(self._retired.pop(), at=time.monotonic()))
        self._do(self._scheduler.tick(at=time.monotonic()))

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        process = group = descendants = None
        if self._limits.suspend_seconds and pid not in (0, os.getpid()):
            with contextlib.suppress(OSError):
                process = os.pidfd_open(pid)
                supervisor = find_supervisor(pid)
                descendants = Descendants(supervisor) if supervisor else None
                group = pid if os.getpgid(pid) == pid and not supervisor else None
        rank = Connection(socket=connection, process=process, group=group, descendants=descendants)
        self._selector.register(connection, selectors.EVENT_READ, rank)

    def _read(self, connection: Connection) -> None:
        """Take in what a rank has sent; whoever is gone, or does not speak the protocol, is disconnected."""
        if connection.socket.fileno() < 0:
            return  # dropped since the selector reported it
        try:
            content = os.read(connection.socket.fileno(), MAX_LINE)
        except OSError:
            content = b""
        connection.received += content
        *lines, connection.received = connection.received.split(b"\n")
        try:
            if not content or len(connection.received) > MAX_LINE:
                raise ValueError
            for line in lines:
                self._take(connection, json.loads(line))
        except (ValueError, KeyError, TypeError):
            self._drop(connection)

    def _take(self, connection: Connection, message: dict[str, Any]) -> None:
        """One message of a rank: who it is, or what it asks."""
        if connection.arm is not None:
            request = parse_request(message)
            self._do(self._scheduler.ask(connection.arm, connection.rank, request, at=time.monotonic()))
            return
        arm, rank, world_size = message["arm"], int(message["rank"]), int(message["ranks"])
        if arm not in self._scheduler.names:
            raise ValueError
        if former := self._connections.get((arm, rank)):  # of workers that were ended and replaced by these
            self._drop(former)
        connection.arm, connection.rank = arm, rank
        self._connections[arm, rank] = connection
        self._scheduler.join(arm, rank, world_size=world_size)

    def _drop(self, connection: Connection) -> None:
        """Close a connection, and tell the scheduler."""
        self._selector.unregister(connection.socket)
        connection.close()
        if connection.arm is not None and self._connections.get((connection.arm, connection.rank)) is connection:
            del self._connections[connection.arm, connection.rank]
            self._do(self._scheduler.lose(connection.arm, connection.rank, at=time.monotonic()))

    def _do(self, decisions: Iterable[Decision]) -> None:
        """Do what was decided, in order."""
        for decision in decisions:
            ranks = [each for (arm, _), each in self._connections.items() if arm == decision.arm]
            match decision:
                case Answer(arm, asked, steps):
                    if steps is not None:  # both arms wait now
                        control = self._measure_control() if self._measure_control else None
                        self._scheduler.begin_turn(arm, control_seconds=control, at=time.monotonic())
                    for rank in ranks:
                        if rank.rank in asked:
                            rank.answer(steps)
                case Suspend() | Resume():
                    for rank in ranks:
                        rank.suspend(isinstance(decision, Suspend))

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data:
                key.data.close()
        self._selector.close()
        for own in (self._listener, self._wake):
            own.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
            self._folder.rmdir()


def parse_request(message: dict[str, Any]) -> Request:
    """What a rank asks, from its message; raises ValueError, KeyError or TypeError when it asks for nothing known."""
    match message["ask"]:
        case "meet":
            return Meet(int(message["place"]), int(message["steps"]))
        case "steps":
            return Steps()
        case "leave":
            return Leave()
    raise ValueError(f"unknown request {message['ask']!r}")
