"""Who owns which tensor, by a ring (`hvbench.training.ring`), and a server's tensors as one float32 vector, as they are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point
from hvbench.training.optimizers import state_shapes
from hvbench.training.ring import Ring
from hvbench.training.weights import Shape, trained_shapes

PARAMETERS = "parameters"


class Tensors:
    """The tensors of one server, in one vector: their gradients or values, or with `kept` all that the server keeps of them."""

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


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
