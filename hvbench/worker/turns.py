"""A rank's side of taking turns: of the launches, or frameworks, that live at the same time, one runs at any moment.

`hvbench.launch.turns.server` serves the turns on a Unix socket, which HVBENCH_TURNS names: ARM:PATH. Every rank asks for itself, one JSON object a line, and waits for the answer; all ranks of an arm get the same one, so that they need not
talk to each other to agree, and a rank that waits sleeps in the kernel.

    {"arm": "a", "rank": 0, "ranks": 2}        who asks; no answer
    {"ask": "meet", "place": 3, "steps": 18}   wait for the other arms at the same point, then for a turn
    {"ask": "steps"}                           the turn is over: wait for the next
    {"ask": "leave"}                           the point is done: wait until the other arms have done it, too
    {"steps": 5}                               the answer: run five steps; null: go on and never ask again
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from hvbench.launch.turns import GIVE_UP_SECONDS, VARIABLE

PROTOCOL = 1  # arms of two revisions can take turns if their protocol is the same


class Turns:
    """Turns of this rank; without a turn server it never waits."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        self._connection = connection
        self._stream = connection.makefile("rwb") if connection else None
        self._is_free = connection is None
        self._is_inside = False
        self._steps: int | None = None  # that are left of this turn; None: as many as it likes

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            with contextlib.suppress(OSError):  # what could not be sent any more
                self._stream.close()
            self._connection.close()

    @property
    def is_alone(self) -> bool:
        """Whether it waits for nobody: there are no turns, or no more."""
        return self._is_free

    @contextlib.contextmanager
    def at(self, place: int | None, *, steps: int) -> Iterator[None]:
        """Be at the point number `place`, of so many steps, together with the other arms: all of it runs in turns.

        None: at no point that another arm would come to.
        """
        if place is None:
            yield
            return
        self._ask({"ask": "meet", "place": place, "steps": steps})
        self._is_inside = True
        try:
            yield
        finally:  # an error ends the worker; the server then sees the connection close
            self._is_inside = False
        self._ask({"ask": "leave"})

    def step(self) -> None:
        """Take one step of this turn, or of the next, which it waits for."""
        if self._steps is None or not self._is_inside:
            return
        if self._steps == 0:
            self._ask({"ask": "steps"})
        if self._steps is not None:
            self._steps -= 1

    def _ask(self, question: dict[str, Any]) -> None:
        if self._is_free:
            return
        answer = b""
        with contextlib.suppress(OSError):
            self._stream.write(json.dumps(question).encode() + b"\n")
            self._stream.flush()
            answer = self._stream.readline()
        if not answer:
            raise ConnectionError("the turn server is gone")
        self._steps = json.loads(answer)["steps"]
        if self._steps is None and question["ask"] != "leave":
            self._is_free = True


def join_turns(*, rank: int, world_size: int) -> Turns:
    """The turns that HVBENCH_TURNS names, or none where it is not set; raises ConnectionError."""
    arm, _, path = os.environ.get(VARIABLE, "").partition(":")
    if not arm:
        return Turns()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise ConnectionError(f"{VARIABLE}={arm}:{path}: no turn server there: {error.strerror}") from None
    connection.sendall(json.dumps({"arm": arm, "rank": rank, "ranks": world_size}).encode() + b"\n")
    return Turns(connection)


def stretch_timeout(seconds: float) -> float:
    """The time limit of a point: in turns of `hvbench ab` it also waits for the other arm, whose limit is the same."""
    return 2 * seconds + 2 * GIVE_UP_SECONDS if os.environ.get(VARIABLE) else seconds
