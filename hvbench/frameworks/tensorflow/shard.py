"""What the ranks share in TensorFlow (ZeRO, arXiv:1910.02054): averages of parts of gradients, all-gathers of parameters, norms of parts.

`Shards` takes the place of the all-reduce: `start(name, gradient)`, called as soon as a gradient is final, and `finish()`, which returns
this rank's parts of the averages. `hvbench.spec.shard` says what is shared, `hvbench.training.parts` how arrays are cut.

Averages are an all-to-all and a mean on each rank, and not Horovod's reduce-scatter, which sends as much: over Gloo that copies a rank's result
to where it still sends from, and on three ranks averages were wrong (docs/communication.md).
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from weakref import WeakKeyDictionary

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.execution import _with_gradient
from hvbench.frameworks.tensorflow.layers import Layers
from hvbench.frameworks.tensorflow.norms import exact_norms
from hvbench.frameworks.tensorflow.operations import start_gather, start_parts, start_reduction, wait
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.parts import group_by_window, part_size, take_part

WIRE_DTYPES = {"none": None, "fp16": tf.float16, "bf16": tf.bfloat16}  # None: the gradients' own
_ROW = 1024  # values of which a norm is taken in their own dtype


class Shards:
    """This rank's parts of what trains, by canonical name: `parts` of the parameters [k] is what the optimizer updates."""

    def __init__(self, point: Point, parameters: dict[str, tf.Variable], *, rank: int, world_size: int) -> None:
        self.mode = SHARDS[point.shard]
        self.rank = rank
        self.world_size = world_size
        self.wire_dtype = WIRE_DTYPES[point.compression]
        self.shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        self.sizes = {name: part_size(shape, world_size=world_size) for name, shape in self.shapes.items()}
        self.pending: dict[str, tf.Tensor] = {}
        self.wholes = {} if self.mode.of_parameters else parameters
        self.parts = {name: tf.Variable(self._padded(value)[self._own(name)]) for name, value in parameters.items()}
        self.sends = True  # whether gradients of gathered parameters are reduced; else this rank's own are kept whole
        self.kept: dict[str, tf.Tensor] = {}
        self._names: WeakKeyDictionary[tf.Graph, Counter[str]] = WeakKeyDictionary()  # on the wire, in each graph

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to send every rank its part of one gradient."""
        self.pending[name] = self._scatter(name, gradient, f"{name}.parts")

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

    def take_kept(self) -> dict[str, tf.Tensor]:
        """This rank's own gradients of gathered parameters, whole, which were not sent; they are kept no longer."""
        kept, self.kept = self.kept, {}
        return {name: kept[name] for name in self.shapes if name in kept}

    def gather_parameters(self, names: Iterable[str]) -> dict[str, tf.Tensor]:
        """Whole parameters, whose gradients are reduced into this rank's parts."""
        return {name: _with_gradient(partial(self._gathered, name))(self.parts[name]) for name in names}

    def receive(self, name: str, gradient: tf.Tensor) -> tf.Tensor:
        """Take the gradient of a gathered parameter, one of each time that it was used; this rank's part of it."""
        if self.sends:
            return self._scatter(name, gradient, self._unique(f"{name}.parts"))
        self.kept[name] = self.kept[name] + gradient if name in self.kept else gradient
        return self.take({name: gradient})[name]

    def spread(self) -> None:
        """Give all ranks the parameters of which each has updated its part, unless they are gathered when they are used."""
        done: list[tf.Operation] = []
        for window in group_by_window({name: 4 * self.world_size * self.sizes[name] for name in self.wholes}):
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

    def _gathered(self, name: str, part: tf.Tensor):
        """A gathered parameter as a function of this rank's part, and its gradient, which goes to all ranks' parts."""

        def backward(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
            return self.receive(name, tf.convert_to_tensor(gradient))

        return self._gather(name, part), backward

    def _scatter(self, name: str, gradient: tf.Tensor, wire_name: str) -> tf.Tensor:
        dtype = self.wire_dtype or gradient.dtype
        wire = tf.cast(self._padded(gradient), dtype)
        is_copied = dtype == tf.bfloat16  # Horovod only copies the bits
        wire = tf.bitcast(wire, tf.float16) if is_copied else wire
        parts = wait(start_parts(wire_name, wire))  # of all ranks, one behind the other
        parts = tf.bitcast(parts, dtype) if is_copied else parts
        parts = tf.reshape(parts, [self.world_size, self.sizes[name]])
        return tf.reduce_mean(tf.cast(parts, gradient.dtype), 0)

    def _unique(self, name: str) -> str:
        """A name on the wire that no other operation of the same graph has: ranks trace the same graphs, but not always in the same order."""
        if tf.executing_eagerly():
            return name
        names = self._names.setdefault(tf.compat.v1.get_default_graph(), Counter())
        names[name] += 1
        return f"{name}.{names[name]}"

    def _gather(self, name: str, part: tf.Tensor) -> tf.Tensor:
        whole = wait(start_gather(self._unique(f"{name}.whole"), part))
        return tf.reshape(whole[: math.prod(self.shapes[name])], self.shapes[name])

    def _join(self, key: str, value: np.ndarray) -> np.ndarray:
        name = _named(key)
        return self._gather(name, tf.constant(value)).numpy() if name in self.shapes else value

    def _sum_over_ranks(self, values: tf.Tensor) -> tf.Tensor:
        name = self._unique("norms")
        return tf.ensure_shape(wait(start_reduction(name, values, op=hvd.Sum)), values.shape)

    def _padded(self, value: tf.Tensor) -> tf.Tensor:
        """A tensor, flat, with zeros behind it [n k]."""
        padding = -value.shape.num_elements() % self.world_size
        flat = tf.reshape(value, [-1])
        return tf.pad(flat, [[0, padding]]) if padding else flat

    def _own(self, name: str) -> slice:
        return slice(self.rank * self.sizes[name], (self.rank + 1) * self.sizes[name])


class GatheredParameters(Mapping[str, tf.Tensor]):
    """A model's parameters by canonical name, of which each rank holds a part: whole while they are held, or for one use."""

    def __init__(self, shards: Shards, others: dict[str, tf.Variable], names: Iterable[str]) -> None:
        self.shards = shards
        self.others = others  # that do not train, and are whole
        self.names = tuple(names)
        self.held: dict[str, tf.Tensor] = {}

    def __getitem__(self, name: str) -> tf.Tensor:
        if name in self.held:
            return self.held[name]
        return self.others[name] if name in self.others else self.shards.gather_parameters([name])[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @contextlib.contextmanager
    def hold(self, prefix: str, x: tf.Tensor) -> Iterator[None]:
        """Within it the parameters whose names begin so are whole, for what reads x."""
        names = [name for name in self.shards.shapes if name.startswith(prefix) and name not in self.held]
        with tf.control_dependencies([x]):  # else a graph would gather all of them as it begins
            self.held |= self.shards.gather_parameters(names)
        try:
            yield
        finally:
            for name in names:
                del self.held[name]


def make_shards(point: Point, model: Layers, *, rank: int, world_size: int) -> Shards | None:
    """What the ranks of `point` share of a model, whose parameters it takes from it if those are shared; None where each rank holds everything."""
    if not point.is_sharded or point.shares_by_itself:
        return None
    shards = Shards(point, model.trained, rank=rank, world_size=world_size)
    if shards.mode.of_parameters:
        others = {name: value for name, value in model.parameters.items() if name not in model.trained}
        model.parameters = GatheredParameters(shards, others, model.parameters)
        model.trained = shards.parts
    return shards


def _squares(parts: list[tf.Tensor]) -> tf.Tensor:
    """Squares of the L2 norms [len(parts)] in float64, each from norms of rows in the part's dtype."""
    whole = [part.shape[0] // _ROW * _ROW for part in parts]
    rows = [tf.reshape(part[:size], [-1, _ROW]) for part, size in zip(parts, whole, strict=True)]
    rests = [part[size:] for part, size in zip(parts, whole, strict=True)]
    return tf.square(tf.stack(exact_norms(rows))) + tf.square(tf.stack(exact_norms(rests)))


def _named(key: str) -> str:
    """The canonical name in `SLOT/NAME`."""
    return key.partition("/")[2]
