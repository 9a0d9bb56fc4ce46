"""What the ranks share in TensorFlow (ZeRO, arXiv:1910.02054): reduce-scatters of gradients, all-gathers of parameters, norms of parts.

`Shards` takes the place of the all-reduce: `start(name, gradient)`, called as soon as a gradient is final, and `finish()`, which returns
this rank's parts of the averages. `hvbench.spec.shard` says what is shared, `hvbench.training.parts` how arrays are cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.allreduce import COMPRESSORS, _wire_name
from hvbench.frameworks.tensorflow.optimizer import _exact_norms
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.parts import part_size, take_part

WINDOW_BYTES = 16 << 20  # of parameters that are gathered at a time, unless one is larger: what arrives is a copy
_ROW = 1024  # values of which a norm is taken in their own dtype


class Shards:
    """This rank's parts of what trains, by canonical name: `parts` of the parameters [k] is what the optimizer updates."""

    def __init__(self, point: Point, parameters: dict[str, tf.Variable], *, rank: int, world_size: int) -> None:
        self.mode = SHARDS[point.shard]
        self.rank = rank
        self.world_size = world_size
        self.compressor = COMPRESSORS[point.compression]
        self.shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        self.sizes = {name: part_size(shape, world_size=world_size) for name, shape in self.shapes.items()}
        self.pending: dict[str, tf.Tensor] = {}
        self.wholes = parameters
        self.parts = {name: tf.Variable(self._padded(value)[self._own(name)]) for name, value in parameters.items()}
        self._sums = 0  # over the ranks, whose names have to differ

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin the reduce-scatter of one gradient; Horovod fuses small ones into one message."""
        wire, context = self.compressor.compress(self._padded(gradient))
        part = hvd.reducescatter(wire, name=_wire_name(f"{name}.parts"), ignore_name_scope=True, op=hvd.Average)
        self.pending[name] = tf.ensure_shape(self.compressor.decompress(part, context), [self.sizes[name]])

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> this rank's part [k] of the average."""
        parts = {name: self.pending[name] for name in self.shapes if name in self.pending}
        self.pending = {}
        return parts

    def take(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """This rank's parts [k] of whole tensors; nothing is sent."""
        return {name: self._padded(value)[self._own(name)] for name, value in gradients.items()}

    def gather(self, parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Every rank's parts [k] -> the whole tensors, on all ranks."""
        return {name: self._gather(name, part) for name, part in parts.items()}

    def spread(self) -> None:
        """Give all ranks the parameters of which each has updated its part."""
        done: list[tf.Operation] = []
        for window in _windows({name: 4 * self.world_size * size for name, size in self.sizes.items()}):
            with tf.control_dependencies(done):  # one window after the other
                wholes = {name: self._gather(name, tf.identity(self.parts[name])) for name in window}
            done = [self.wholes[name].assign(whole, read_value=False) for name, whole in wholes.items()]

    def join(self, state: Arrays) -> Arrays:
        """The optimizer's state of parts [k], `SLOT/NAME`, as whole arrays; all ranks call it."""
        return {key: self._join(key, value) for key, value in state.items()}

    def cut(self, state: Arrays) -> Arrays:
        """What `join` returns -> this rank's parts."""
        choices = {"rank": self.rank, "world_size": self.world_size}
        return {
            key: take_part(value, **choices) if _named(key) in self.shapes else value for key, value in state.items()
        }

    def load(self, state: Arrays) -> None:
        """Take this rank's parts of the parameters from `state`, `parameters/NAME`."""
        for name, part in self.parts.items():
            part.assign(take_part(state[f"parameters/{name}"], rank=self.rank, world_size=self.world_size))

    def global_norm(self, parts: list[tf.Tensor]) -> tf.Tensor:
        """L2 norm of all of `parts` together, of all ranks, in float64."""
        return tf.sqrt(self._sum_over_ranks(tf.reduce_sum(_squares(parts))[None])[0])

    def measure_norms(self, parts: list[tf.Tensor]) -> list[tf.Tensor]:
        """L2 norm of each tensor of which `parts` are this rank's, rounded to its dtype."""
        norms = tf.unstack(tf.sqrt(self._sum_over_ranks(_squares(parts))))
        return [tf.cast(norm, part.dtype) for norm, part in zip(norms, parts, strict=True)]

    def _gather(self, name: str, part: tf.Tensor) -> tf.Tensor:
        whole = hvd.allgather(part, name=_wire_name(f"{name}.whole"), ignore_name_scope=True)
        return tf.reshape(whole[: math.prod(self.shapes[name])], self.shapes[name])

    def _join(self, key: str, value: np.ndarray) -> np.ndarray:
        name = _named(key)
        return self._gather(name, tf.constant(value)).numpy() if name in self.shapes else value

    def _sum_over_ranks(self, values: tf.Tensor) -> tf.Tensor:
        self._sums += 1
        name = f"norms.{self._sums}"
        return tf.ensure_shape(
            hvd.allreduce(values, op=hvd.Sum, name=_wire_name(name), ignore_name_scope=True), values.shape
        )

    def _padded(self, value: tf.Tensor) -> tf.Tensor:
        """A tensor, flat, with zeros behind it [n k]."""
        padding = -value.shape.num_elements() % self.world_size
        flat = tf.reshape(value, [-1])
        return tf.pad(flat, [[0, padding]]) if padding else flat

    def _own(self, name: str) -> slice:
        return slice(self.rank * self.sizes[name], (self.rank + 1) * self.sizes[name])


def make_shards(point: Point, parameters: dict[str, tf.Variable], *, rank: int, world_size: int) -> Shards | None:
    """What the ranks of `point` share of `parameters`; None where each holds all of them."""
    if not SHARDS[point.shard].of_optimizer:
        return None
    return Shards(point, parameters, rank=rank, world_size=world_size)


def _squares(parts: list[tf.Tensor]) -> tf.Tensor:
    """Squares of the L2 norms [len(parts)] in float64, each from norms of rows in the part's dtype."""
    whole = [part.shape[0] // _ROW * _ROW for part in parts]
    rows = [tf.reshape(part[:size], [-1, _ROW]) for part, size in zip(parts, whole, strict=True)]
    rests = [part[size:] for part, size in zip(parts, whole, strict=True)]
    return tf.square(tf.stack(_exact_norms(rows))) + tf.square(tf.stack(_exact_norms(rests)))


def _windows(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Names in their order, as many at a time as have WINDOW_BYTES together, or one."""
    window: list[str] = []
    for name, size in sizes.items():
        if window and sum(sizes[each] for each in window) + size > WINDOW_BYTES:
            yield window
            window = []
        window.append(name)
    if window:
        yield window


def _named(key: str) -> str:
    """The canonical name in `SLOT/NAME`."""
    return key.partition("/")[2]
