"""The turnstile of an A/B comparison: of two launches that live at the same time, one runs and the other stands still.

The ranks of both arms ask here before each block of steps (`hvbench.worker.turns` has the protocol). Both arms begin a point
together. A turn is a few steps, the same number for both arms; AB and BA rounds alternate, begun at random. The ranks
of the arm that waits are stopped with SIGSTOP, threads and all, for Horovod's background thread and a BLAS's spinning
threads would take time from the arm that runs. They are woken after a few seconds all the same: the sockets between
them have time limits.

Nobody waits for ever: a rank that dies closes its connection and with it its arm's point; an arm that ends is out for
good; a turn, or a wait for the other arm, that takes too long opens the turnstile for both, and `given_up` says why.
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
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvbench.worker.turns import GIVE_UP_SECONDS

BLOCK_SECONDS = 0.02  # of a turn, and never less than one step: what disturbs a step often disturbs the next, too
LEAST_TURNS = 8  # of a point, for each arm
STILL_SECONDS = 5.0  # for which ranks are stopped at most; Gloo takes a peer for lost after 30
LOOK_SECONDS = 0.5  # between looks at the clock
MAX_LINE = 4096


@dataclass(eq=False, kw_only=True)
class Rank:
    """A connection of one rank."""

    connection: socket.socket
    process: int | None  # its pidfd
    arm: Arm | None = None
    number: int = 0
    received: bytes = b""
    is_stopped: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Stop or continue its process, where that is possible."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.process, number)
                self.is_stopped = number == signal.SIGSTOP

    def answer(self, steps: int | None) -> None:
        """Let it go on."""
        with contextlib.suppress(OSError):  # it is gone; its end of the connection will say so
            self.connection.sendall(json.dumps({"steps": steps}).encode() + b"\n")


@dataclass(eq=False, kw_only=True)
class Arm:
    """Where one arm is: away, meet (at `place`, waiting for the other), wait (for a turn), run, or left."""

    name: str
    state: str = "away"
    place: int = -1
    steps: int = 1
    size: int = 0
    ranks: dict[int, Rank] = field(default_factory=dict)
    asked: dict[int, dict[str, Any]] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)  # places that it will not come to again
    is_out: bool = False
    since: float = 0.0  # time.monotonic() when its state changed
    patience: float = 0.0  # seconds in its state, of those in which the turnstile itself was awake

    @property
    def is_inside(self) -> bool:
        """Whether it is at a point that has begun."""
        return self.state in ("wait", "run", "left")

    def go(self, state: str) -> None:
        """Change its state."""
        self.state, self.since, self.patience = state, time.monotonic(), 0.0

    def answer(self, steps: int | None) -> None:
        """Let all its ranks go on."""
        self.asked.clear()
        for rank in self.ranks.values():
            rank.answer(steps)

    def signal(self, number: signal.Signals) -> None:
        """Stop or continue all its ranks."""
        for rank in self.ranks.values():
            if rank.is_stopped != (number == signal.SIGSTOP):
                rank.signal(number)


class Turnstile:
    """Serves the turns of one pair of launches from a thread of its own, from `__enter__` to `__exit__`."""

    def __init__(
        self, names: Sequence[str], *, seed: Sequence[int] = (0,),
        block_seconds: float = BLOCK_SECONDS, give_up_seconds: float = GIVE_UP_SECONDS, still_seconds: float = STILL_SECONDS,
    ) -> None:  # fmt: skip
        self.arms = {name: Arm(name=name) for name in names}
        self.given_up: str | None = None
        self.log: list[
            tuple[int, str, int, float]
        ] = []  # every turn: place, arm, steps, and the seconds that it was held for
        self._random = random.Random(repr(tuple(seed)))
        self._block_seconds = block_seconds
        self._give_up_seconds = give_up_seconds
        self._still_seconds = still_seconds
        self._queue: list[Arm] = []  # whose turn comes next, in this round and the next
        self._turn_steps = 1
        self._slowest: dict[str, float] = {}  # seconds a step of each arm's last turn at this point
        self._retired: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="hvbench-turns-"))  # nobody else can open it
        self.path = self._folder / "socket"
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._waker = socket.socketpair()
        self._is_closing = False
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="hvbench-turnstile", daemon=True)

    def __enter__(self) -> Turnstile:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        for each in (self._listener, self._wake):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._waker.send(b".")
        self._thread.join()

    def variable(self, arm: str) -> str:
        """What HVBENCH_TURNS says to the ranks of `arm`."""
        return f"{arm}:{self.path}"

    def retire(self, arm: str) -> None:
        """The launch of `arm` has ended: nobody has to wait for it any more."""
        self._retired.append(arm)
        self._waker.send(b".")

    def _serve(self) -> None:
        try:
            while not self._is_closing:
                for key, _ in self._selector.select(timeout=LOOK_SECONDS):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._wake:
                        os.read(self._wake.fileno(), 64)
                    else:
                        self._hear(key.data)
                while self._retired:
                    arm = self.arms[self._retired.pop()]
                    arm.is_out = True
                    self._end_point(arm)
                self._settle()
                self._check_clocks()
        finally:
            self._close()

    # What ranks say

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        process = None
        with contextlib.suppress(OSError):
            process = os.pidfd_open(pid) if self._still_seconds and pid not in (0, os.getpid()) else None
        self._selector.register(connection, selectors.EVENT_READ, Rank(connection=connection, process=process))

    def _hear(self, rank: Rank) -> None:
        try:
            content = os.read(rank.connection.fileno(), MAX_LINE)
        except OSError:
            content = b""
        rank.received += content
        *lines, rank.received = rank.received.split(b"\n")
        try:
            if not content or len(rank.received) > MAX_LINE:
                raise ValueError
            for line in lines:
                self._note(rank, json.loads(line))
        except (ValueError, KeyError, TypeError):  # gone, or not a rank of hvbench
            self._forget(rank)

    def _note(self, rank: Rank, said: dict[str, Any]) -> None:
        if rank.arm is None:
            arm, number = self.arms[said["arm"]], int(said["rank"])
            if number in arm.ranks:  # of workers that were ended; their connection has not told yet
                self._forget(arm.ranks[number])
            rank.arm, rank.number = arm, number
            arm.ranks[number], arm.size = rank, int(said["ranks"])
            return
        arm = rank.arm
        if self.given_up is not None:
            rank.answer(None)
            return
        arm.asked[rank.number] = said
        if len(arm.asked) == arm.size:
            self._note_all(arm, said)

    def _note_all(self, arm: Arm, said: dict[str, Any]) -> None:
        """All ranks of an arm have asked: its turn, if it had one, is over."""
        if arm.state == "run":
            seconds = time.monotonic() - arm.since
            self.log.append((arm.place, arm.name, self._turn_steps, round(seconds, 6)))
            self._slowest[arm.name] = seconds / self._turn_steps
        if said["ask"] == "meet":
            arm.place, arm.steps = int(said["place"]), max(1, int(said["steps"]))
            arm.go("meet")
        elif said["ask"] == "leave":
            arm.go("left")
        else:
            arm.go("wait")

    def _forget(self, rank: Rank) -> None:
        """A connection is closed; the point at which its arm was has ended for it."""
        self._selector.unregister(rank.connection)
        rank.connection.close()
        if rank.process is not None:
            rank.signal(signal.SIGCONT)
            os.close(rank.process)
        if rank.arm and rank.arm.ranks.get(rank.number) is rank:
            del rank.arm.ranks[rank.number]
            self._end_point(rank.arm)

    def _end_point(self, arm: Arm) -> None:
        if arm.state != "away":
            arm.passed.add(arm.place)
        arm.asked.clear()
        arm.go("away")
        arm.signal(signal.SIGCONT)  # its other ranks have to notice

    # Whose turn it is

    def _settle(self) -> None:
        """Begin or end a point, or give the next turn, if nobody has it."""
        inside = [arm for arm in self.arms.values() if arm.is_inside]
        if self.given_up is not None or any(arm.state == "run" for arm in inside):
            return
        if inside and all(arm.state == "left" for arm in inside):
            for arm in inside:
                arm.signal(signal.SIGCONT)
                arm.passed.add(arm.place)
                arm.go("away")
                arm.answer(None)
            inside = []
        if not inside and not (inside := self._begin()):
            return
        waiting = [arm for arm in inside if arm.state == "wait"]
        while waiting:
            if not self._queue:
                self._plan_round(inside)
            arm = self._queue.pop(0)
            if arm in waiting:
                self._grant(arm)
                return

    def _begin(self) -> list[Arm]:
        """The arms that begin a point now: both at the same one, or one that the other will not come to."""
        meeting = [arm for arm in self.arms.values() if arm.state == "meet"]
        coming = [arm for arm in self.arms.values() if arm.state != "meet" and not arm.is_out]
        place = min((arm.place for arm in meeting), default=-1)
        ready = [arm for arm in meeting if arm.place == place]
        if not ready or any(place not in arm.passed for arm in coming):
            return []
        for arm in ready:
            arm.go("wait")
        self._queue, self._slowest, self._turn_steps = [], {}, 1
        return ready

    def _plan_round(self, inside: Sequence[Arm]) -> None:
        """The next two rounds, one the reverse of the other, and how many steps a turn has in them."""
        order = list(inside)
        self._random.shuffle(order)
        self._queue = [*order, *reversed(order)]
        slowest, steps = max(self._slowest.values(), default=0.0), min(arm.steps for arm in inside)
        if slowest:
            self._turn_steps = max(1, min(int(self._block_seconds / slowest), steps // LEAST_TURNS))

    def _grant(self, arm: Arm) -> None:
        for other in self.arms.values():
            if other is not arm and other.state in ("meet", "wait", "left"):
                other.signal(signal.SIGSTOP)
        arm.signal(signal.SIGCONT)
        arm.go("run")
        arm.answer(self._turn_steps)

    # Clocks

    def _check_clocks(self) -> None:
        """Wake ranks that have stood still for long, and open the turnstile where somebody takes too long."""
        now = time.monotonic()
        # Somebody may have stopped all of this for minutes (Ctrl-Z, a suspended machine): that is no arm's fault.
        seconds, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        is_begun = any(arm.is_inside for arm in self.arms.values())
        for arm in self.arms.values():
            arm.patience += seconds
            if arm.state == "meet" and is_begun:  # it waits for a point that the other arm has for itself
                arm.patience = 0.0
            if arm.state == "run" and arm.patience > self._still_seconds:
                for other in self.arms.values():
                    other.signal(signal.SIGCONT)
            if arm.state in ("run", "meet") and arm.patience > self._give_up_seconds and self.given_up is None:
                did = "held its turn" if arm.state == "run" else "waited for the other arm"
                self.given_up = f"arm {arm.name} {did} for {self._give_up_seconds:g} s"
                for each in self.arms.values():
                    each.signal(signal.SIGCONT)
                    each.answer(None)

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data:
                self._forget(key.data)
        self._selector.close()
        for each in (self._listener, self._wake, self._waker):
            each.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
            self._folder.rmdir()
