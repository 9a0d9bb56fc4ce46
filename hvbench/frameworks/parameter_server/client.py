"""A rank's side of parameter servers: for a launch its connections, for a point its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.numpy_norms import measure_norms
from hvbench.frameworks.parameter_server.frames import (
    NO_NUMBERS,
    NOTHING,
    Frame,
    Kind,
    Numbers,
    Peer,
    PeerGone,
    only,
    take_all,
)
from hvbench.frameworks.parameter_server.meeting import connect, count_servers
from hvbench.frameworks.parameter_server.tensors import PARAMETERS, place_tensors
from hvbench.spec.point import Point


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What the servers made of a rank's gradients."""

    parameters: Arrays  # views, until the next request
    gradient_norm: float
    skipped: bool  # an fp16 overflow dropped the update
    staleness: int  # updates by other ranks' gradients since this rank pulled its parameters, the most of any server


class ServedRanks:
    """The ranks that servers update, seen from one of them: they know each other through the first server."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        """Connect to all servers of the launch; waits for them."""
        self.rank = rank
        self.world_size = world_size
        self.servers = [
            Peer(connect(server, number=rank), name=f"parameter server {server}", room=only(NOTHING))
            for server in range(count_servers())
        ]
        self._values = np.empty(world_size, dtype=np.float64)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(0.0)

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, ordered by rank: the same list on all ranks, bit for bit."""
        first = self.servers[0]
        first.room = only(self._values)
        first.put(Frame(kind=Kind.GATHER, numbers=(value, 0.0, 0.0)))
        take_all([first])
        return self._values.tolist()

    def leave(self) -> None:
        """Let the servers end, when all ranks have come to this."""
        with contextlib.suppress(PeerGone):  # it has nothing more to give
            for server in self.servers:
                server.room = only(NOTHING)
                server.put(Frame(kind=Kind.BYE))
            take_all(self.servers)
        for server in self.servers:
            server.stream.close()


class ServerClient:
    """A rank's side of one point. Tensors go to the servers that own them as one float32 vector each, and come back so."""

    def __init__(self, point: Point, ranks: ServedRanks, weights: Mapping[str, np.ndarray]) -> None:
        """`weights` by canonical name are what rank 0 starts the servers from; returns on all ranks when the servers have them."""
        self.rank, self.servers = ranks.rank, ranks.servers
        self.tensors = place_tensors(point, servers=len(self.servers))
        self._out = [np.empty(each.size, dtype=np.float32) for each in self.tensors]
        self._back = [np.empty(each.size, dtype=np.float32) for each in self.tensors]
        self._nothing = [NOTHING] * len(self.servers)
        if self.rank == 0:
            text = np.frombuffer(point.model_dump_json().encode(), dtype=np.uint8)
            for server in self.servers:
                server.put(Frame(kind=Kind.POINT, content=text))
        self.load(weights, None)
        ranks.barrier()  # a rank's first request must not come before rank 0 has begun the point

    def average(self, gradients: Arrays) -> Arrays:
        """Gradients averaged over the ranks; from an asynchronous server, which never averages, this rank's own."""
        self._join(gradients)
        self._ask(Kind.AVERAGE, NO_NUMBERS, self._out, self._back)
        return self._parameters()

    def update(self, gradients: Arrays, *, learning_rate: float, loss_scale: float) -> Pushed:
        """Push gradients, times `loss_scale`, and pull the parameters after the update."""
        self._join(gradients)
        squares = sum(norm**2 for norm in measure_norms(self._out))
        answers = self._ask(Kind.UPDATE, (learning_rate, loss_scale, squares), self._out, self._back)
        norm, skipped, _ = answers[0]
        return Pushed(
            parameters=self._parameters(),
            gradient_norm=norm,
            skipped=bool(skipped),
            staleness=int(max(staleness for _, _, staleness in answers)),
        )

    def state(self) -> tuple[Arrays, Arrays]:
        """Parameters by canonical name, and the optimizer's state as `SLOT/NAME` and `updates`: what the servers have now."""
        vectors = [np.empty(each.kept_size, dtype=np.float32) for each in self.tensors]
        answers = self._ask(Kind.STATE, NO_NUMBERS, self._nothing, vectors)
        parameters: Arrays = {}
        slots: Arrays = {"updates": np.array(max(updates for updates, _, _ in answers), dtype=np.int64)}
        for tensors, vector in zip(self.tensors, vectors, strict=True):
            for name, value in tensors.split(vector, kept=True).items():
                kind, _, tensor = name.partition("/")
                (parameters if kind == PARAMETERS else slots)[tensor if kind == PARAMETERS else name] = value
        return parameters, slots

    def load(self, parameters: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray] | None) -> None:
        """Let the servers continue from parameters and a state of the optimizer, from zero where there is none; rank 0's count.

        Returns when they have them. The others may train only after a barrier. Raises KeyError where an array is missing.
        """
        if self.rank != 0:
            return
        vectors = []
        for tensors in self.tensors:
            vector = np.zeros(tensors.kept_size, dtype=np.float32)
            kept = {f"{PARAMETERS}/{name}": parameters[name] for name in tensors.shapes}
            for name, part in tensors.split(vector, kept=True).items():
                if slots is not None or name in kept:
                    np.copyto(part, kept[name] if name in kept else slots[name], casting="same_kind")
            vectors.append(vector)
        updates = 0 if slots is None else int(slots["updates"])
        self._ask(Kind.LOAD, (updates, 0.0, 0.0), vectors, self._nothing)

    def leave(self) -> None:
        """Tell the servers that this rank has finished the point, and wait until all ranks have."""
        self._ask(Kind.LEAVE, NO_NUMBERS, self._nothing, self._nothing)

    def _join(self, gradients: Arrays) -> None:
        for tensors, vector in zip(self.tensors, self._out, strict=True):
            tensors.join(gradients, vector)

    def _ask(
        self, kind: Kind, numbers: Numbers, out: Sequence[np.ndarray], back: Sequence[np.ndarray]
    ) -> list[Numbers]:
        """Send each server its part of `out`; the numbers of their answers, whose arrays are in `back` then."""
        for server, content, room in zip(self.servers, out, back, strict=True):
            server.room = only(room)
            server.put(Frame(kind=kind, numbers=numbers, content=content))
        return [frame.numbers for frame in take_all(self.servers)]

    def _parameters(self) -> Arrays:
        return {
            name: value
            for tensors, vector in zip(self.tensors, self._back, strict=True)
            for name, value in tensors.split(vector).items()
        }
