"""The process of a parameter server: it meets ranks and other servers, and serves one point after the other until every rank has said goodbye."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable, Iterator

import numpy as np

from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.parameter_server.frames import (
    NOTHING,
    Frame,
    Kind,
    Peer,
    PeerGone,
    Room,
    only,
    require_size,
    take_all,
)
from hvbench.frameworks.parameter_server.meeting import connect, count_servers, open_door, welcome
from hvbench.frameworks.parameter_server.server import Server
from hvbench.spec.point import Point

MAX_POINT_BYTES = 1 << 20  # of a point as JSON
OnPoint = Callable[[Point], None]


def serve(place: int, *, world_size: int, on_point: OnPoint = lambda point: None) -> None:
    """Be server `place` of this launch's; returns when all ranks have gone. `on_point` is called when a point begins.

    Raises PeerGone where one has gone without a goodbye, and ValueError where something is sent that is not due.
    """
    keep_freed_memory()
    servers = count_servers()
    listener = open_door(place)
    to_first = [connect(0, number=world_size + place)] if place else []
    others = [] if place else range(1, servers)
    streams = welcome(listener, wanted={*range(world_size), *(world_size + other for other in others)})
    links = [*to_first, *(streams[world_size + other] for other in others)]
    names = [0] if place else others
    peers = [
        Peer(stream, name=f"parameter server {name}", room=only(NOTHING))
        for name, stream in zip(names, links, strict=True)
    ]
    hub = Hub(peers, is_first=not place)
    service = Service(place=place, servers=servers, world_size=world_size, sum_over_servers=hub.sum, on_point=on_point)
    service.run([Peer(streams[rank], name=f"rank {rank}", room=service.room_for(rank)) for rank in range(world_size)])


class Hub:
    """How servers add up a number of each: all send theirs to the first, which sends them the sum."""

    def __init__(self, peers: list[Peer], *, is_first: bool) -> None:
        """Args: `peers` are all others for the first server, and the first for the others."""
        self.peers = peers
        self.is_first = is_first

    def sum(self, value: float) -> float:
        """The sum over all servers, in their order: the same on each, bit for bit. Waits for all."""
        if not self.is_first:
            self._send(value)
        received = [frame.numbers[0] for frame in take_all(self.peers)]
        if not self.is_first:
            return received[0]
        total = sum(received, start=value)
        self._send(total)
        return total

    def _send(self, value: float) -> None:
        for peer in self.peers:
            peer.put(Frame(kind=Kind.SUM, numbers=(value, 0.0, 0.0)))  # so few bytes the kernel takes at once


class Service:
    """A server's loop: takes what arrives from whichever rank, and answers without waiting for anybody to read it."""

    def __init__(
        self,
        *,
        place: int,
        servers: int,
        world_size: int,
        sum_over_servers: Callable[[float], float],
        on_point: OnPoint,
    ) -> None:
        self.world_size = world_size
        self.on_point = on_point
        self.peers: list[Peer] = []  # by rank
        self.server: Server | None = None  # of the point that is trained
        self.gathered: dict[int, float] = {}
        self.gone: set[int] = set()  # ranks that have said goodbye, or have ended between two points
        self.lost: set[int] = set()  # the latter
        self._role = {"place": place, "servers": servers, "sum_over_servers": sum_over_servers}
        self._gradients: dict[int, np.ndarray] = {}  # rank -> where its gradients arrive

    def run(self, peers: list[Peer]) -> None:
        """Serve these ranks until each has said goodbye."""
        self.peers = peers
        with selectors.DefaultSelector() as selector:
            for rank, peer in enumerate(peers):
                selector.register(peer.stream, selectors.EVENT_READ, rank)
            while len(self.gone) < self.world_size or any(peer.is_sending for peer in peers):
                for key, ready in selector.select():
                    with self._bearing_loss(key.data):
                        if ready & selectors.EVENT_WRITE:
                            peers[key.data].send()
                        if ready & selectors.EVENT_READ:
                            self._listen(key.data)
                for rank, peer in enumerate(peers):
                    self._watch(selector, rank, peer)

    def room_for(self, rank: int) -> Room:
        """Where the content of a rank's next request goes."""

        def room(kind: Kind, size: int) -> np.ndarray:
            if kind == Kind.POINT and rank == 0 and size <= MAX_POINT_BYTES:
                return np.empty(size, np.uint8)
            require_size(kind, size, due=self.server.due_bytes(kind) if self.server else 0)
            if kind not in (Kind.AVERAGE, Kind.UPDATE):
                return np.empty(size // 4, np.float32)
            if rank not in self._gradients:
                self._gradients[rank] = np.empty(size // 4, np.float32)
            return self._gradients[rank]

        return room

    def _listen(self, rank: int) -> None:
        """Handle what has arrived from one rank."""
        while rank not in self.gone and (request := self.peers[rank].take()) is not None:
            self._handle(rank, request)

    def _handle(self, rank: int, request: Frame) -> None:
        match request.kind:
            case Kind.POINT:
                self._begin(request)
            case Kind.GATHER:
                self.gathered[rank] = request.numbers[0]
                if len(self.gathered) == self.world_size:
                    values = np.array([self.gathered.pop(each) for each in range(self.world_size)])
                    self._answer_everybody(Frame(kind=Kind.GATHER, content=values))
            case Kind.BYE:
                self._part_from(rank)
            case _ if self.server is None:
                raise ValueError(f"rank {rank} sent a {request.kind.name}, and no point has begun")
            case _:
                if request.kind == Kind.LOAD or not self.server.point.is_repeatable:
                    for peer in self.peers:  # else all have the answer before the parameters change
                        peer.copy_unsent()
                for answer in self.server.handle(rank, request):
                    self._put(answer.rank, answer.frame)
                if not self.server.left:
                    self.server = None

    def _begin(self, request: Frame) -> None:
        if self.server is not None:
            raise ValueError("rank 0 began a point before all ranks had left the one before")
        point = Point.model_validate_json(request.content.tobytes())
        self.on_point(point)
        self.server = Server(point, world_size=self.world_size, **self._role)
        self._gradients.clear()

    def _answer_everybody(self, frame: Frame) -> None:
        for rank in range(self.world_size):
            self._put(rank, frame)

    def _put(self, rank: int, frame: Frame) -> None:
        if rank not in self.lost:
            with self._bearing_loss(rank):
                self.peers[rank].put(frame)

    @contextlib.contextmanager
    def _bearing_loss(self, rank: int) -> Iterator[None]:
        """A rank that is gone between two points, which its agent ends when its jobs are done, has parted; within one that ends the server."""
        try:
            yield
        except PeerGone:
            if self.server is not None:
                raise
            self.lost.add(rank)
            self.peers[rank].forget_unsent()
            self._part_from(rank)

    def _part_from(self, rank: int) -> None:
        """A rank asks for nothing more; when none does, those that wait for it may go."""
        if rank not in self.gone:
            self.gone.add(rank)
            if len(self.gone) == self.world_size:
                self._answer_everybody(Frame(kind=Kind.BYE))

    def _watch(self, selector: selectors.BaseSelector, rank: int, peer: Peer) -> None:
        """Wait for what a rank sends, until its goodbye, and for room for what is to be sent to it."""
        events = (0 if rank in self.gone else selectors.EVENT_READ) | (selectors.EVENT_WRITE if peer.is_sending else 0)
        key = selector.get_map().get(peer.stream)
        if key is None and events:
            selector.register(peer.stream, events, rank)
        elif key is not None and not events:
            selector.unregister(peer.stream)
        elif key is not None and events != key.events:
            selector.modify(peer.stream, events, rank)
