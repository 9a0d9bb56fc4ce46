"""What ranks and parameter servers send each other: frames of a kind, three numbers and an array, on TCP connections that nobody waits in.

A frame is a header of fixed size, which says how long the content is, and the content: the bytes of an array whose type and size both ends know
by the kind, or a point's JSON. Nothing is pickled, and a content of any other size than is due ends the connection.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from hvbench.launch.handshake import keep_alive

HEADER = struct.Struct("<BQ3d")  # kind, bytes of the content, three numbers
Numbers = tuple[float, float, float]
NO_NUMBERS: Numbers = (0.0, 0.0, 0.0)
NOTHING = np.empty(0, np.uint8)


class Kind(IntEnum):
    """What a frame is about; an answer has the kind of its request."""

    POINT = 1  # a point begins: its JSON; not answered
    LOAD = 2  # go on from these parameters and this state of the optimizer
    STATE = 3  # send both
    AVERAGE = 4  # these gradients, averaged over the ranks
    UPDATE = 5  # the parameters after an update with these gradients
    LEAVE = 6  # the rank has finished the point; answered when all have
    GATHER = 7  # a number of each rank; answered with all of them
    SUM = 8  # a number of each server; answered with their sum
    BYE = 9  # the rank asks for nothing more; answered when all have said so


class PeerGone(ConnectionError):
    """The other end of a connection is gone; why, its own end says (see `hvbench.launch.diagnosis`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One message."""

    kind: Kind
    numbers: Numbers = NO_NUMBERS
    content: np.ndarray = field(default_factory=lambda: NOTHING)


Room = Callable[
    [Kind, int], np.ndarray
]  # kind and bytes of a frame that comes -> where its content goes; raises ValueError


class Peer:
    """One end of a connection: what is still to be sent, and what has arrived of the next frame."""

    def __init__(self, stream: socket.socket, *, name: str, room: Room) -> None:
        """Args: `name` is the other end's in messages; `room` may be replaced between two frames."""
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(stream)
        self.stream = stream
        self.name = name
        self.room = room
        self._header = bytearray(HEADER.size)
        self._rest = memoryview(self._header)  # of what is received now, the part that has not come
        self._frame: Frame | None = None  # whose content is received now; None: a header is
        self._unsent: deque[memoryview] = deque()

    @property
    def is_sending(self) -> bool:
        """Whether some of what was put here is not sent."""
        return bool(self._unsent)

    def put(self, frame: Frame) -> None:
        """Send what the kernel takes of a frame, and keep the rest, a view: until it is sent, or `copy_unsent`, the content must not change."""
        self._unsent.append(memoryview(HEADER.pack(frame.kind, frame.content.nbytes, *frame.numbers)))
        if frame.content.nbytes:
            self._unsent.append(memoryview(frame.content).cast("B"))
        self.send()

    def send(self) -> None:
        """Send what the kernel takes now. Raises PeerGone."""
        while self._unsent:
            try:
                count = self.stream.sendmsg(list(self._unsent)[:2])
            except BlockingIOError:
                return
            except OSError as error:
                raise PeerGone(f"{self.name} is gone: {error.strerror}") from None
            while self._unsent and count >= len(self._unsent[0]):
                count -= len(self._unsent.popleft())
            if count:
                self._unsent[0] = self._unsent[0][count:]

    def forget_unsent(self) -> None:
        """Send nothing more of what was put here."""
        self._unsent.clear()

    def copy_unsent(self) -> None:
        """Copy what is not sent, so that the arrays which it is of may change."""
        self._unsent = deque(part if part.readonly else memoryview(bytes(part)) for part in self._unsent)

    def take(self) -> Frame | None:
        """The next frame, once it is here; None: not yet. Raises PeerGone, or ValueError for what is no frame that is due."""
        while True:
            while self._rest:
                try:
                    count = self.stream.recv_into(self._rest)
                except BlockingIOError:
                    return None
                except OSError as error:
                    raise PeerGone(f"{self.name} is gone: {error.strerror}") from None
                if not count:
                    raise PeerGone(f"{self.name} is gone")
                self._rest = self._rest[count:]
            if self._frame is not None:
                frame, self._frame = self._frame, None
                self._rest = memoryview(self._header)
                return frame
            self._frame = self._read_header()
            self._rest = memoryview(self._frame.content).cast("B") if self._frame.content.nbytes else memoryview(b"")

    def _read_header(self) -> Frame:
        number, size, *numbers = HEADER.unpack(self._header)
        try:
            kind = Kind(number)
            content = self.room(kind, size)
        except ValueError as error:
            raise ValueError(f"{self.name} sent what is not due: {error}") from None
        return Frame(kind=kind, numbers=tuple(numbers), content=content)


def only(array: np.ndarray) -> Room:
    """Room for the content of a frame that fills `array`, and for no other."""

    def room(kind: Kind, size: int) -> np.ndarray:
        require_size(kind, size, due=array.nbytes)
        return array

    return room


def require_size(kind: Kind, size: int, *, due: int) -> None:
    """Raise ValueError where a frame has another content than its kind has."""
    if size != due:
        raise ValueError(f"{kind.name} with {size} bytes, where {due} are due")


def take_all(peers: Sequence[Peer]) -> list[Frame]:
    """One frame of each peer, sending meanwhile what was put there: no link waits for another. Raises PeerGone and ValueError."""
    frames: list[Frame | None] = [None] * len(peers)
    with selectors.DefaultSelector() as selector:
        for place, peer in enumerate(peers):
            selector.register(peer.stream, _events(peer, is_due=True), place)
        while selector.get_map():
            for key, ready in selector.select():
                place, peer = key.data, peers[key.data]
                if ready & selectors.EVENT_WRITE:
                    peer.send()
                if ready & selectors.EVENT_READ:
                    frames[place] = peer.take()
                events = _events(peer, is_due=frames[place] is None)
                if not events:
                    selector.unregister(peer.stream)
                elif events != key.events:
                    selector.modify(peer.stream, events, place)
    return frames


def _events(peer: Peer, *, is_due: bool) -> int:
    """What to wait for at a connection; 0: nothing."""
    return (selectors.EVENT_READ if is_due else 0) | (selectors.EVENT_WRITE if peer.is_sending else 0)
