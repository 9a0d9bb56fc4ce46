"""A parameter server on mpi4py, for both twins: ranks push gradients, the server updates, ranks pull parameters.

Synchronous: the server waits for all ranks, averages in rank order, and makes the update that every rank makes after an
all-reduce. Asynchronous: it updates with each rank's gradients as they arrive, so a gradient may be stale: computed from
parameters that other ranks' gradients have updated since (Li et al., OSDI 2014; Dean et al., NeurIPS 2012). The server is
a process beside the ranks and imports no framework. All tensors are sent as one float32 vector, in the order of the
parameters that train.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.ranks import MpiRanks
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.optimizers import rate_factor
from hvbench.training.weights import initial_weights, is_decayed, trained_shapes

AVERAGE, UPDATE, LEAVE = 0.0, 1.0, 2.0  # kinds of request
HEADER_TAG, VECTOR_TAG, POINT_TAG, END_TAG = 1, 2, 3, 4


class ServerClient:
    """A rank's side of the protocol, for one point. The server is the last process of MPI's world."""

    def __init__(self, point: Point, ranks: MpiRanks) -> None:
        self.shapes = trained_shapes(point)
        self.world = ranks.world
        self.server: int = self.world.size - 1
        self.vector = np.empty(sum(math.prod(shape) for shape in self.shapes.values()), dtype=np.float32)
        if self.world.rank == 0:
            self.world.Send(
                np.frombuffer(point.model_dump_json().encode(), dtype=np.uint8), dest=self.server, tag=POINT_TAG
            )

    def average(self, gradients: Arrays) -> Arrays:
        """Gradients averaged over the ranks; from an asynchronous server, which never averages, this rank's own."""
        self._request(AVERAGE, gradients)
        return self._split()

    def update(self, gradients: Arrays, *, learning_rate: float, loss_scale: float) -> tuple[Arrays, float, bool]:
        """(parameters after the server's update, gradient norm, whether an fp16 overflow dropped the update)."""
        norm, skipped = self._request(UPDATE, gradients, learning_rate=learning_rate, loss_scale=loss_scale)
        return self._split(), norm, bool(skipped)

    def _request(self, kind: float, gradients: Arrays, *, learning_rate: float = 0.0, loss_scale: float = 1.0) -> tuple:
        """Send a request with this rank's gradients; the numbers of the answer, its vector in `self.vector`."""
        np.concatenate([gradients[name].reshape(-1) for name in self.shapes], out=self.vector, casting="same_kind")
        self.world.Send(np.array([kind, learning_rate, loss_scale]), dest=self.server, tag=HEADER_TAG)
        self.world.Send(self.vector, dest=self.server, tag=VECTOR_TAG)
        answer = np.empty(2)
        self.world.Recv(answer, source=self.server, tag=HEADER_TAG)
        self.world.Recv(self.vector, source=self.server, tag=VECTOR_TAG)
        return tuple(answer)

    def _split(self) -> Arrays:
        """`self.vector` as arrays by canonical name (views)."""
        arrays, begin = {}, 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            arrays[name] = self.vector[begin:end].reshape(shape)
            begin = end
        return arrays

    def leave(self) -> None:
        """Tell the server that this rank has finished the point, and wait until all ranks have."""
        self.world.Send(np.array([LEAVE, 0.0, 0.0]), dest=self.server, tag=HEADER_TAG)
        self.world.Recv(np.empty(0), source=self.server, tag=END_TAG)


class Server:
    """The server's side of the protocol, for one point: parameters and AdamW's moments, as flat float32 vectors."""

    def __init__(self, point: Point, ranks: MpiRanks) -> None:
        self.point = point
        self.ranks = ranks
        weights = initial_weights(point, dtype="float32")
        weights = {name: weights[name] for name in trained_shapes(point)}
        self.parameters = np.concatenate([value.reshape(-1) for value in weights.values()])
        self.is_decayed = np.concatenate(
            [np.full(value.size, is_decayed(name), dtype=np.float32) for name, value in weights.items()]
        )
        self.factors = np.concatenate(
            [np.full(value.size, rate_factor(point, name), dtype=np.float32) for name, value in weights.items()]
        )  # of the learning rate
        self.first = np.zeros_like(self.parameters)
        self.second = np.zeros_like(self.parameters)
        self.updates = 0

    def serve(self) -> None:
        """Answer requests until every rank has finished the point."""
        left = set(range(self.ranks.world.size - 1))
        is_synchronous = self.point.is_repeatable
        while left:
            if is_synchronous:
                left = self._serve_all(sorted(left))
            else:
                left -= self._serve_one()
        for rank in range(self.ranks.world.size - 1):  # not before: requests of the next point are for its own server
            self.ranks.world.Send(np.empty(0), dest=rank, tag=END_TAG)

    def _serve_all(self, ranks: Sequence[int]) -> set[int]:
        """Answer one request of every rank, all of the same kind; the ranks that have not finished."""
        requests = [self._receive_request(rank) for rank in ranks]
        if requests[0][0] == LEAVE:
            return set()
        total = self._receive_vector(ranks[0])
        for rank in ranks[1:]:
            total += self._receive_vector(rank)
        answer, vector = self._answer(requests[0], total / np.float32(len(ranks)))
        for rank in ranks:
            self._send(rank, answer, vector)
        return set(ranks)

    def _serve_one(self) -> set[int]:
        """Answer the request that arrives first, from whichever rank; the ranks that it says have finished."""
        status = self.ranks.mpi.Status()
        header = np.empty(3)
        self.ranks.world.Recv(header, source=self.ranks.mpi.ANY_SOURCE, tag=HEADER_TAG, status=status)
        rank = status.Get_source()
        if header[0] == LEAVE:
            return {rank}
        self._send(rank, *self._answer(header, self._receive_vector(rank)))
        return set()

    def _answer(self, request: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, vector) to send back: averages of the gradients, or what `update` returns and the new parameters."""
        kind, learning_rate, loss_scale = request
        if kind == AVERAGE:
            return np.zeros(2), gradients
        norm, skipped = self.update(gradients, learning_rate=learning_rate, loss_scale=loss_scale)
        return np.array([norm, skipped]), self.parameters

    def update(self, gradients: np.ndarray, *, learning_rate: float, loss_scale: float) -> tuple[float, bool]:
        """Clip and update by AdamW (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2), as the twins do.

        Args:
            gradients: [parameters], averaged, times `loss_scale`; overwritten.
            learning_rate: Of this update.
            loss_scale: Factor of the gradients, divided out before clipping.

        Returns:
            Gradient norm, unscaled and before clipping, and whether an fp16 overflow dropped the update.
        """
        point = self.point
        # In float64: a float32 dot product over all values is off by as much as the twins are allowed to differ.
        norm = math.sqrt(np.square(gradients, dtype=np.float64).sum()) / loss_scale
        if PRECISIONS[point.precision].loss_scaling and not math.isfinite(norm):
            return norm, True
        factor = min(1.0, point.max_gradient_norm / (norm + 1e-6)) if point.max_gradient_norm else 1.0
        gradients *= np.float32(factor / loss_scale)
        self.updates += 1
        self.first += np.float32(1 - point.beta1) * (gradients - self.first)
        self.second *= np.float32(point.beta2)
        self.second += np.float32(1 - point.beta2) * gradients * gradients
        correction1, correction2 = 1 - point.beta1**self.updates, 1 - point.beta2**self.updates
        if point.weight_decay:
            self.parameters *= 1 - np.float32(learning_rate * point.weight_decay) * self.is_decayed * self.factors
        root = np.sqrt(self.second) / np.float32(math.sqrt(correction2)) + np.float32(point.epsilon)
        self.parameters -= np.float32(learning_rate / correction1) * self.factors * self.first / root
        return norm, False

    def _receive_request(self, rank: int) -> np.ndarray:
        header = np.empty(3)
        self.ranks.world.Recv(header, source=rank, tag=HEADER_TAG)
        return header

    def _receive_vector(self, rank: int) -> np.ndarray:
        vector = np.empty_like(self.parameters)
        self.ranks.world.Recv(vector, source=rank, tag=VECTOR_TAG)
        return vector

    def _send(self, rank: int, answer: np.ndarray, vector: np.ndarray) -> None:
        self.ranks.world.Send(answer, dest=rank, tag=HEADER_TAG)
        self.ranks.world.Send(vector, dest=rank, tag=VECTOR_TAG)


def serve_points() -> None:
    """The server's main loop: serve each point that rank 0 sends (as JSON), until it sends an empty message."""
    ranks = MpiRanks(is_server=True)
    status = ranks.mpi.Status()
    while True:
        ranks.world.Probe(source=0, tag=POINT_TAG, status=status)
        text = np.empty(status.Get_count(), dtype=np.uint8)
        ranks.world.Recv(text, source=0, tag=POINT_TAG)
        if not text.size:
            break
        Server(Point.model_validate_json(text.tobytes()), ranks).serve()
    ranks.leave()


class ServedRanks(MpiRanks):
    """The ranks that a server updates; it ends with them."""

    def leave(self) -> None:
        """End the server, then MPI."""
        if self.world.rank == 0:
            self.world.Send(np.empty(0, dtype=np.uint8), dest=self.world.size - 1, tag=POINT_TAG)
        super().leave()
