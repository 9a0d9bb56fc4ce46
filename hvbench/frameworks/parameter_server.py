"""Parameter servers on mpi4py, for both twins: ranks push gradients, servers update, ranks pull parameters.

Synchronous: each server waits for all ranks, averages in rank order, and makes the update that every rank makes after an
all-reduce. Asynchronous: it updates with each rank's gradients as they arrive, so a gradient may be stale: computed from
parameters that other ranks' gradients have updated since (Li et al., OSDI 2014; Dean et al., NeurIPS 2012). With a
`staleness_bound` of s a rank that is more than s updates ahead of the slowest waits for its parameters (stale synchronous parallel,
Ho et al., NeurIPS 2013). Servers are processes beside the ranks and import no framework. Each owns whole tensors, by a ring
(`hvbench.training.ring`), and sends and gets them as one float32 vector, in the order of the parameters that train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.numpy_norms import clip_factor, measure_norms
from hvbench.frameworks.numpy_optimizer import make_optimizer
from hvbench.frameworks.ranks import MpiRanks
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.optimizers import state_shapes
from hvbench.training.ring import Ring
from hvbench.training.weights import Shape, trained_shapes

AVERAGE, UPDATE, LEAVE, STATE, LOAD = 0.0, 1.0, 2.0, 3.0, 4.0  # kinds of request
HEADER_TAG, VECTOR_TAG, POINT_TAG, END_TAG = 1, 2, 3, 4
REQUEST_NUMBERS = 4  # kind, learning rate or number of updates, loss scale, sum of the squares of the rank's gradients
ANSWER_NUMBERS = 3  # gradient norm or number of updates, whether the update was dropped, staleness
PARAMETERS = "parameters"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What the servers made of a rank's gradients."""

    parameters: Arrays  # views, until the next request
    gradient_norm: float
    skipped: bool  # an fp16 overflow dropped the update
    staleness: int  # updates by other ranks' gradients since this rank pulled its parameters, the most of any server


class Tensors:
    """The tensors of one server, in one vector: their gradients or values, or with `slots` all that the server keeps of them."""

    def __init__(self, point: Point, names: Sequence[str]) -> None:
        shapes = trained_shapes(point)
        self.shapes: dict[str, Shape] = {name: shapes[name] for name in names}
        self.kept = {f"{PARAMETERS}/{name}": shape for name, shape in self.shapes.items()}
        for slot, of_slot in state_shapes(point).items():
            self.kept |= {f"{slot}/{name}": shape for name, shape in of_slot.items() if name in self.shapes}

    @property
    def size(self) -> int:
        """Values of all tensors."""
        return _count(self.shapes)

    @property
    def kept_size(self) -> int:
        """Values of all tensors and of the optimizer's state."""
        return _count(self.kept)

    def split(self, vector: np.ndarray, *, kept: bool = False) -> Arrays:
        """The vector as arrays (views): by canonical name, or `parameters/NAME` and `SLOT/NAME`."""
        arrays, begin = {}, 0
        for name, shape in (self.kept if kept else self.shapes).items():
            end = begin + math.prod(shape)
            arrays[name] = vector[begin:end].reshape(shape)
            begin = end
        return arrays

    def join(self, arrays: Mapping[str, np.ndarray], vector: np.ndarray, *, kept: bool = False) -> None:
        """Write arrays by name into a vector, as `split` reads it."""
        for name, part in self.split(vector, kept=kept).items():
            np.copyto(part, arrays[name], casting="same_kind")


def place_tensors(point: Point, *, servers: int) -> list[Tensors]:
    """What each server owns of what trains, by a ring: one more server moves 1 / n of the tensors, all of them to it."""
    ring, names = Ring(servers), list(trained_shapes(point))
    return [Tensors(point, ring.share(names, place=server)) for server in range(servers)]


class ServerClient:
    """A rank's side of the protocol, for one point. The servers are the last processes of MPI's world."""

    def __init__(self, point: Point, ranks: ServedRanks, weights: Mapping[str, np.ndarray]) -> None:
        """`weights` by canonical name are what rank 0 starts the servers from."""
        self.mpi, self.world = ranks.mpi, ranks.world
        self.servers = range(ranks.world_size, self.world.size)
        self.tensors = place_tensors(point, servers=len(self.servers))
        self._out = [np.empty(each.size, dtype=np.float32) for each in self.tensors]
        self._back = [np.empty(each.size, dtype=np.float32) for each in self.tensors]
        if self.world.rank == 0:
            text = np.frombuffer(point.model_dump_json().encode(), dtype=np.uint8)
            for server in self.servers:
                self.world.Send(text, dest=server, tag=POINT_TAG)
        self.load(weights, None)

    def average(self, gradients: Arrays) -> Arrays:
        """Gradients averaged over the ranks; from an asynchronous server, which never averages, this rank's own."""
        self._push(AVERAGE, gradients)
        return self._parameters()

    def update(self, gradients: Arrays, *, learning_rate: float, loss_scale: float) -> Pushed:
        """Push gradients, times `loss_scale`, and pull the parameters after the update."""
        answers = self._push(UPDATE, gradients, learning_rate=learning_rate, loss_scale=loss_scale)
        return Pushed(
            parameters=self._parameters(),
            gradient_norm=float(answers[0, 0]),
            skipped=bool(answers[0, 1]),
            staleness=int(answers[:, 2].max()),
        )

    def state(self) -> tuple[Arrays, Arrays]:
        """Parameters by canonical name, and the optimizer's state as `SLOT/NAME` and `updates`: what the servers have now."""
        vectors = [np.empty(each.kept_size, dtype=np.float32) for each in self.tensors]
        answers = self._ask(np.array([STATE, 0.0, 1.0, 0.0]), None, vectors)
        parameters: Arrays = {}
        slots: Arrays = {"updates": np.array(answers[:, 0].max(), dtype=np.int64)}
        for tensors, vector in zip(self.tensors, vectors, strict=True):
            for name, value in tensors.split(vector, kept=True).items():
                kind, _, tensor = name.partition("/")
                (parameters if kind == PARAMETERS else slots)[tensor if kind == PARAMETERS else name] = value
        return parameters, slots

    def load(self, parameters: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray] | None) -> None:
        """Let the servers continue from parameters and a state of the optimizer, from zero where there is none; rank 0's count.

        Returns when they have them. The others may train only after a barrier. Raises KeyError where an array is missing.
        """
        if self.world.rank != 0:
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
        self._ask(np.array([LOAD, updates, 1.0, 0.0]), vectors, [np.empty(0, dtype=np.float32) for _ in vectors])

    def leave(self) -> None:
        """Tell the servers that this rank has finished the point, and wait until all ranks have."""
        for server in self.servers:
            self.world.Send(np.array([LEAVE, 0.0, 0.0, 0.0]), dest=server, tag=HEADER_TAG)
        for server in self.servers:
            self.world.Recv(np.empty(0), source=server, tag=END_TAG)

    def _push(
        self, kind: float, gradients: Arrays, *, learning_rate: float = 0.0, loss_scale: float = 1.0
    ) -> np.ndarray:
        """Send this rank's gradients to those that own them; the numbers of all answers, their vectors in `_back`."""
        for tensors, vector in zip(self.tensors, self._out, strict=True):
            tensors.join(gradients, vector)
        squares = sum(norm**2 for norm in measure_norms(self._out)) if kind == UPDATE else 0.0
        return self._ask(np.array([kind, learning_rate, loss_scale, squares]), self._out, self._back)

    def _ask(self, header: np.ndarray, out: Sequence[np.ndarray] | None, back: Sequence[np.ndarray]) -> np.ndarray:
        """Send every server a request and maybe a vector; the numbers of their answers [servers, 3], their vectors in `back`.

        All receptions are begun before anything is sent, so no server that answers one rank keeps another waiting for ever.
        """
        answers = np.empty((len(self.servers), ANSWER_NUMBERS))
        begun = []
        for place, server in enumerate(self.servers):
            begun.append(self.world.Irecv(answers[place], source=server, tag=HEADER_TAG))
            begun.append(self.world.Irecv(back[place], source=server, tag=VECTOR_TAG))
        for place, server in enumerate(self.servers):
            begun.append(self.world.Isend(header, dest=server, tag=HEADER_TAG))
            if out is not None:
                begun.append(self.world.Isend(out[place], dest=server, tag=VECTOR_TAG))
        self.mpi.Request.Waitall(begun)
        return answers

    def _parameters(self) -> Arrays:
        return {
            name: value
            for tensors, vector in zip(self.tensors, self._back, strict=True)
            for name, value in tensors.split(vector).items()
        }


class Server:
    """A server's side of the protocol, for one point: its tensors and their optimizer."""

    def __init__(self, point: Point, ranks: MpiRanks, *, place: int = 0, servers: int = 1) -> None:
        self.point = point
        self.ranks = ranks
        self.servers = servers
        self.tensors = place_tensors(point, servers=servers)[place]
        self.vector = np.zeros(self.tensors.size, dtype=np.float32)
        self.parameters = self.tensors.split(self.vector)  # views
        self.optimizer = make_optimizer(self.parameters, point=point)
        self.left: set[int] = set()  # ranks that have not finished the point
        self.pulled: dict[int, int] = {}  # rank -> updates that its parameters had when it got them
        self.pushed: dict[int, float] = {}  # rank -> how often it pushed; a rank that pushes no more holds nobody back
        self.waiting: dict[int, np.ndarray] = {}  # rank -> its answer, held back by the staleness bound

    def serve(self) -> None:
        """Answer requests until every rank has finished the point."""
        ranks = range(self.ranks.world.size - self.servers)
        self.left, self.pulled, self.pushed = set(ranks), dict.fromkeys(ranks, 0), dict.fromkeys(ranks, 0.0)
        while self.left:
            if self.point.is_repeatable:
                self._serve_all()
            else:
                self._serve_one()
        for rank in ranks:  # not before: requests of the next point are for its own server
            self.ranks.world.Send(np.empty(0), dest=rank, tag=END_TAG)

    def _serve_all(self) -> None:
        """Wait for gradients of every rank, and answer them all; a state is sent or loaded for each rank that asks, meanwhile."""
        requests: dict[int, np.ndarray] = {}
        while len(requests) < len(self.left):
            request, rank = self._receive_request()
            if not self._serve_state(request, rank):
                requests[rank] = request
        ranks = sorted(self.left)
        request = requests[ranks[0]]
        if request[0] == LEAVE:
            self.left.clear()
            return
        total = self._receive_vector(ranks[0], self.tensors.size)
        for rank in ranks[1:]:
            total += self._receive_vector(rank, self.tensors.size)
        total /= np.float32(len(ranks))
        answer, vector = np.zeros(ANSWER_NUMBERS), total
        if request[0] == UPDATE:
            squares = self._sum_over_servers(sum(norm**2 for norm in measure_norms([total])))
            answer[:2] = self.update(total, squares=squares, learning_rate=request[1], loss_scale=request[2])
            vector = self.vector
        for rank in ranks:
            self._send(rank, answer, vector)

    def _serve_one(self) -> None:
        """Take the request that arrives first, from whichever rank, and answer whom the staleness bound lets go on."""
        request, rank = self._receive_request()
        if self._serve_state(request, rank):
            return
        if request[0] == LEAVE:
            self.left.discard(rank)
        elif request[0] == AVERAGE:
            self._send(rank, np.zeros(ANSWER_NUMBERS), self._receive_vector(rank, self.tensors.size))
        else:
            self.waiting[rank] = self.push(rank, request, self._receive_vector(rank, self.tensors.size))
        for ready in self.find_ready():
            self._send(ready, self.waiting.pop(ready), self.vector)
            self.pulled[ready] = self.optimizer.updates

    def _serve_state(self, request: np.ndarray, rank: int) -> bool:
        """Send a rank what the server keeps, or take it from it, if that is what it asks for."""
        if request[0] == STATE:
            self._send_state(rank)
        elif request[0] == LOAD:
            self._load(request, rank)
        return request[0] in (STATE, LOAD)

    def push(self, rank: int, request: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Update with one rank's gradients; the numbers to answer, staleness included."""
        _, learning_rate, loss_scale, squares = request
        staleness = self.optimizer.updates - self.pulled[rank]
        norm, skipped = self.update(gradients, squares=squares, learning_rate=learning_rate, loss_scale=loss_scale)
        self.pushed[rank] += 1
        if not math.isfinite(norm) and not (skipped and loss_scale > 1.0):
            self.pushed[rank] = math.inf  # it has diverged and trains no more: the others are not to wait for it
        return np.array([norm, skipped, staleness])

    def find_ready(self) -> list[int]:
        """The ranks that may have their parameters: at most `staleness_bound` updates ahead of the slowest that still trains."""
        slowest = min((self.pushed[rank] for rank in self.left), default=math.inf)
        bound = math.inf if self.point.staleness_bound is None else self.point.staleness_bound
        return [rank for rank in self.waiting if self.pushed[rank] <= slowest + bound or math.isinf(self.pushed[rank])]

    def update(
        self, gradients: np.ndarray, *, squares: float, learning_rate: float, loss_scale: float
    ) -> tuple[float, bool]:
        """Clip and update, as the twins do.

        Args:
            gradients: [values] of this server's tensors, times `loss_scale`; overwritten.
            squares: sum of the squares of all tensors' gradients, those of other servers included, times `loss_scale`².
            learning_rate: Of this update.
            loss_scale: Factor of the gradients, divided out before clipping.

        Returns:
            Global gradient norm, unscaled and before clipping, and whether an fp16 overflow dropped the update.
        """
        norm = math.sqrt(squares) / loss_scale
        if PRECISIONS[self.point.precision].loss_scaling and not math.isfinite(norm):
            return norm, True
        factor = clip_factor(norm, max_norm=self.point.max_gradient_norm)
        gradients *= np.float32(factor / loss_scale)
        self.optimizer.update(self.tensors.split(gradients), learning_rate=learning_rate)
        return norm, False

    def _sum_over_servers(self, squares: float) -> float:
        """In float64: a float32 sum over all values is off by as much as the twins are allowed to differ."""
        return squares if self.servers == 1 else self.ranks.communicator.allreduce(squares)

    def _load(self, request: np.ndarray, rank: int) -> None:
        kept = self.tensors.split(self._receive_vector(rank, self.tensors.kept_size), kept=True)
        self.tensors.join({name: kept[f"{PARAMETERS}/{name}"] for name in self.parameters}, self.vector)
        self.optimizer.load_state(kept | {"updates": np.array(request[1], dtype=np.int64)})
        self.pulled = dict.fromkeys(self.pulled, self.optimizer.updates)
        self._send(rank, np.zeros(ANSWER_NUMBERS), np.empty(0, dtype=np.float32))

    def _send_state(self, rank: int) -> None:
        slots = self.optimizer.state()
        vector = np.empty(self.tensors.kept_size, dtype=np.float32)
        values = {f"{PARAMETERS}/{name}": value for name, value in self.parameters.items()} | slots
        self.tensors.join(values, vector, kept=True)
        self._send(rank, np.array([slots["updates"], 0.0, 0.0]), vector)

    def _receive_request(self) -> tuple[np.ndarray, int]:
        """The next request of any rank, and which: a rank sends another one only when it has its answer."""
        status, header = self.ranks.mpi.Status(), np.empty(REQUEST_NUMBERS)
        self.ranks.world.Recv(header, source=self.ranks.mpi.ANY_SOURCE, tag=HEADER_TAG, status=status)
        return header, status.Get_source()

    def _receive_vector(self, rank: int, size: int) -> np.ndarray:
        vector = np.empty(size, dtype=np.float32)
        self.ranks.world.Recv(vector, source=rank, tag=VECTOR_TAG)
        return vector

    def _send(self, rank: int, answer: np.ndarray, vector: np.ndarray) -> None:
        self.ranks.world.Send(answer, dest=rank, tag=HEADER_TAG)
        self.ranks.world.Send(vector, dest=rank, tag=VECTOR_TAG)


def serve_points() -> None:
    """A server's main loop: serve each point that rank 0 sends (as JSON), until it sends an empty message."""
    ranks = MpiRanks(is_server=True)
    place, servers = ranks.communicator.rank, ranks.communicator.size
    status = ranks.mpi.Status()
    while True:
        ranks.world.Probe(source=0, tag=POINT_TAG, status=status)
        text = np.empty(status.Get_count(), dtype=np.uint8)
        ranks.world.Recv(text, source=0, tag=POINT_TAG)
        if not text.size:
            break
        Server(Point.model_validate_json(text.tobytes()), ranks, place=place, servers=servers).serve()
    ranks.leave()


class ServedRanks(MpiRanks):
    """The ranks that servers update; these end with them."""

    def leave(self) -> None:
        """End the servers, then MPI."""
        if self.world.rank == 0:
            for server in range(self.world_size, self.world.size):
                self.world.Send(np.empty(0, dtype=np.uint8), dest=server, tag=POINT_TAG)
        super().leave()


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
