"""What a parameter server makes of the ranks' requests in one point: its tensors, their optimizer, and whom it answers when. No I/O.

Synchronous: each server waits for all ranks, averages in rank order, and makes the update that every rank makes after an
all-reduce. Asynchronous: it updates with each rank's gradients as they arrive, so a gradient may be stale: computed from
parameters that other ranks' gradients have updated since (Li et al., OSDI 2014; Dean et al., NeurIPS 2012). With a
`staleness_bound` of s a rank that is more than s updates ahead of the slowest waits for its parameters (stale synchronous parallel,
Ho et al., NeurIPS 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hvbench.frameworks.numpy_norms import clip_factor, measure_norms
from hvbench.frameworks.numpy_optimizer import make_optimizer
from hvbench.frameworks.parameter_server.frames import NO_NUMBERS, Frame, Kind, Numbers
from hvbench.frameworks.parameter_server.tensors import PARAMETERS, place_tensors
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A frame for a rank. Its content may be what the server works on: see `Server.handle`."""

    rank: int
    frame: Frame


class Server:
    """One server in one point."""

    def __init__(
        self,
        point: Point,
        *,
        world_size: int,
        place: int = 0,
        servers: int = 1,
        sum_over_servers: Callable[[float], float] = lambda value: value,
    ) -> None:
        """Args: `sum_over_servers` gives all servers the sum of a number of theirs, in float64: a float32 sum over all values is off by as
        much as the twins are allowed to differ."""
        self.point = point
        self.world_size = world_size
        self.sum_over_servers = sum_over_servers
        self.tensors = place_tensors(point, servers=servers)[place]
        self.vector = np.zeros(self.tensors.size, dtype=np.float32)
        self.parameters = self.tensors.split(self.vector)  # views
        self.optimizer = make_optimizer(self.parameters, point=point)
        self.total = np.empty_like(self.vector)  # of all ranks' gradients
        self.requests: dict[int, Frame] = {}  # rank -> what it asks of a server that waits for all
        self.left = set(range(world_size))  # ranks that have not finished the point
        self.pulled = dict.fromkeys(self.left, 0)  # rank -> updates that its parameters had when it got them
        # Rank -> how often it pushed; a rank that pushes no more holds nobody back.
        self.pushed = dict.fromkeys(self.left, 0.0)
        self.waiting: dict[int, Numbers] = {}  # rank -> its answer, held back by the staleness bound

    def due_bytes(self, kind: Kind) -> int:
        """The size of a request's content."""
        values = {Kind.AVERAGE: self.tensors.size, Kind.UPDATE: self.tensors.size, Kind.LOAD: self.tensors.kept_size}
        return 4 * values.get(kind, 0)

    def handle(self, rank: int, request: Frame) -> list[Answer]:
        """Take a rank's request, whose content may be overwritten; the answers that are ready by now, in rank order.

        Their contents may change with the next call, and those of a rank's gradients with its next request.
        """
        match request.kind:
            case Kind.STATE:
                return [self._send_state(rank)]
            case Kind.LOAD:
                return [self._load(rank, request)]
            case Kind.LEAVE:
                self.left.discard(rank)
                if not self.left:
                    return [Answer(rank=each, frame=Frame(kind=Kind.LEAVE)) for each in range(self.world_size)]
            case Kind.AVERAGE | Kind.UPDATE if self.point.is_repeatable:
                self.requests[rank] = request
                return self._answer_all() if len(self.requests) == self.world_size else []
            case Kind.AVERAGE:
                return [Answer(rank=rank, frame=Frame(kind=Kind.AVERAGE, content=request.content))]
            case Kind.UPDATE:
                self.waiting[rank] = self.push(rank, request.numbers, request.content)
            case _:
                raise ValueError(f"rank {rank} sent a {request.kind.name} within a point")
        return self._release()

    def push(self, rank: int, numbers: Numbers, gradients: np.ndarray) -> Numbers:
        """Update with one rank's gradients; the numbers to answer, staleness included."""
        learning_rate, loss_scale, squares = numbers
        staleness = self.optimizer.updates - self.pulled[rank]
        norm, skipped = self.update(gradients, squares=squares, learning_rate=learning_rate, loss_scale=loss_scale)
        self.pushed[rank] += 1
        if not math.isfinite(norm) and not (skipped and loss_scale > 1.0):
            self.pushed[rank] = math.inf  # it has diverged and trains no more: the others are not to wait for it
        return norm, skipped, staleness

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

    def _answer_all(self) -> list[Answer]:
        """The average of all ranks' gradients, or the parameters after an update with it, for every rank."""
        first, *others = (self.requests[rank] for rank in range(self.world_size))
        self.requests = {}
        if any(other.kind != first.kind for other in others):
            raise ValueError("the ranks do not ask for the same: some for averages, some for an update")
        total = first.content
        for other in others:
            total = np.add(total, other.content, out=self.total)
        total /= np.float32(self.world_size)
        numbers, vector = NO_NUMBERS, total
        if first.kind == Kind.UPDATE:
            learning_rate, loss_scale, _ = first.numbers
            squares = self.sum_over_servers(sum(norm**2 for norm in measure_norms([total])))
            norm, skipped = self.update(total, squares=squares, learning_rate=learning_rate, loss_scale=loss_scale)
            numbers, vector = (norm, skipped, 0.0), self.vector
        frame = Frame(kind=first.kind, numbers=numbers, content=vector)
        return [Answer(rank=rank, frame=frame) for rank in range(self.world_size)]

    def _release(self) -> list[Answer]:
        """Parameters for those whom the staleness bound lets go on."""
        answers = []
        for rank in self.find_ready():
            frame = Frame(kind=Kind.UPDATE, numbers=self.waiting.pop(rank), content=self.vector)
            answers.append(Answer(rank=rank, frame=frame))
            self.pulled[rank] = self.optimizer.updates
        return answers

    def _load(self, rank: int, request: Frame) -> Answer:
        kept = self.tensors.split(request.content, kept=True)
        self.tensors.join({name: kept[f"{PARAMETERS}/{name}"] for name in self.parameters}, self.vector)
        self.optimizer.load_state(kept | {"updates": np.array(request.numbers[0], dtype=np.int64)})
        self.pulled = dict.fromkeys(self.pulled, self.optimizer.updates)
        return Answer(rank=rank, frame=Frame(kind=Kind.LOAD))

    def _send_state(self, rank: int) -> Answer:
        slots = self.optimizer.state()
        vector = np.empty(self.tensors.kept_size, dtype=np.float32)
        values = {f"{PARAMETERS}/{name}": value for name, value in self.parameters.items()} | slots
        self.tensors.join(values, vector, kept=True)
        return Answer(rank=rank, frame=Frame(kind=Kind.STATE, numbers=(slots["updates"], 0.0, 0.0), content=vector))
