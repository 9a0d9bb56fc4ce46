"""One training step in TensorFlow: accumulate gradients, all-reduce them once, clip, update.

`Trainer.train_step` and the methods below it are the whole step, in the order in which they run. The other public
methods run parts of a step, for the breakdown of its time, for evaluations and for the parity check. Methods whose
docstring begins with "Graph:" are traced by `_run` into one `tf.function` each.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, GradientNorms, StepResult
from hvbench.frameworks.parameter_server import ServedRanks, ServerClient
from hvbench.frameworks.ranks import SingleRank
from hvbench.frameworks.tensorflow.compression import FeedbackAllReduce, make_exchange
from hvbench.frameworks.tensorflow.execution import compiled
from hvbench.frameworks.tensorflow.local_sgd import ParameterAverage
from hvbench.frameworks.tensorflow.model import Model
from hvbench.frameworks.tensorflow.optimizer import global_norm, make_optimizer
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.frameworks.tensorflow.shard import make_shards
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.dropout import dropout_seed
from hvbench.training.layout import Layout

# Operations whose results a backward pass reads although no forward pass computes them: weights and constants.
_NOT_COMPUTED = ("ReadVariableOp", "Placeholder", "Const")


class _Pass(NamedTuple):
    """The input of one backward pass, all tensors: a graph is not traced again when their values change."""

    inputs: tf.Tensor  # [B, T]
    targets: tf.Tensor  # [B, T], or classes [B]
    starts: tf.Tensor  # [B, T], where documents begin; [0] where rows hold none
    places: tf.Tensor  # [samples], where each begins among the rows; [0] where each has a row
    # A of its step, over the pass's weight where it has one: the pass contributes 1 / A of the step's mean loss.
    count: tf.Tensor
    seed: tf.Tensor  # [2], of its dropout


class Trainer:
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.device = "GPU:0" if runtime.device == "cuda" else "CPU:0"
        self.rank = runtime.rank
        self.can_overflow = precision.loss_scaling or COMPRESSIONS[point.compression].wire.is_compressed
        self.passes = 0  # backward passes done in training: the index into the sequence of dropout's seeds
        runtime.use_tf32(precision.uses_tf32)
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        ranks = runtime.ranks if STRATEGIES[point.strategy].exchanges else SingleRank()
        with tf.device(self.device):
            self.shards = make_shards(point, self.model, rank=runtime.rank, world_size=ranks.world_size)
            if self.shards:
                self.optimizer = make_optimizer(self.shards.parts, point=point, norms=self.shards.measure_norms)
            else:
                self.optimizer = make_optimizer(self.model.trained, point=point)
            self.sums: dict[str, tf.Variable] = {}  # gradients of the passes before the last
            if point.gradient_accumulation_steps > 1:
                summed = self.shards.parts if self._shares_gradients else self.model.trained
                self.sums = {name: tf.Variable(tf.zeros_like(p)) for name, p in summed.items()}
        self.allreduce = self.shards or make_exchange(ranks, point, rank=runtime.rank, device=self.device)
        with tf.device(self.device):
            self.average = ParameterAverage(point, self.optimizer, ranks) if point.has_local_updates else None
        self.server = ServerClient(point, ranks, weights) if isinstance(ranks, ServedRanks) else None
        # A GPU's operations run behind the graph's; where parameters are gathered, ranks wait for each other throughout the passes.
        self.times_exchange = runtime.device == "cpu" and ranks.world_size > 1 and not SHARDS[point.shard].of_parameters
        self.kept: dict[str, tf.Tensor] = {}  # gradients of the last `backward`, for `allreduce_alone`
        self._graphs: dict[str, Callable[..., Any]] = {}
        choices = {"choice": point.compile, "device": runtime.device}
        self._compiled_backward = compiled(self._backward, **choices)
        self._compiled_forward = compiled(self._forward, **choices)

    def train_step(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None = None,
        *,
        learning_rate: float,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> StepResult:
        if self.server and with_allreduce:
            return self._train_on_server(inputs, targets, layout, learning_rate=learning_rate, loss_scale=loss_scale)
        scale = self._scalar(loss_scale)
        *earlier, last = self._split(inputs, targets, layout)
        loss = self._accumulate_all(earlier, scale, with_allreduce=with_allreduce)
        last_loss, gradient_norm, skipped, waited = self._run(
            self._finish_step, last, scale, self._scalar(learning_rate), with_allreduce=with_allreduce
        )
        self.passes += len(inputs)
        return StepResult(
            loss=float(loss + last_loss),
            gradient_norm=float(gradient_norm),
            skipped=bool(skipped),
            exchange_wait_seconds=float(waited) if with_allreduce and self.times_exchange else None,
        )

    @property
    def _whole_names(self) -> list[str]:
        """Names of the parameters that this rank holds whole."""
        is_shared = self.shards is not None and self.shards.mode.of_parameters
        return [name for name in self.model.parameters if not (is_shared and name in self.model.trained)]

    @property
    def _shares_gradients(self) -> bool:
        """Whether this rank keeps sums of its parts alone, and reduces the gradients of each pass."""
        return self.shards is not None and self.shards.mode.of_gradients

    def _accumulate_all(self, passes: list[_Pass], scale: tf.Tensor, *, with_allreduce: bool) -> tf.Tensor:
        """Run `passes` and add their gradients up; their share of the step's mean loss."""
        loss = tf.zeros((), self.model.parameter_dtype)
        for batch in passes:
            loss += self._run(self._accumulate, batch, scale, with_allreduce=with_allreduce)
        return loss

    def _accumulate(self, batch: _Pass, scale: tf.Tensor, *, with_allreduce: bool) -> tf.Tensor:
        """Graph: one backward pass, its gradients added to `sums`; its share of the step's mean loss."""
        loss, gradients = self._compiled_backward(batch, scale, sends=with_allreduce)
        if self._shares_gradients:
            gradients, _ = self._reduce(gradients, with_allreduce=with_allreduce)
        for name, gradient in gradients.items():
            self.sums[name].assign_add(gradient)
        return loss

    def _finish_step(
        self, batch: _Pass, scale: tf.Tensor, learning_rate: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Graph: the end of a step, from its last backward pass to the update, so that the all-reduce can overlap both."""
        loss, gradients, waited = self._averaged_gradients(batch, scale, with_allreduce=with_allreduce)
        is_shared = self.shards is not None and with_allreduce
        if self.shards and not with_allreduce and not self._shares_gradients:
            gradients = self.shards.take(gradients)
        gradient_norm, skipped = self._update(gradients, scale, learning_rate, is_shared=is_shared)
        if is_shared:
            self.shards.spread()
        return loss, gradient_norm, skipped, waited

    def _averaged_gradients(
        self, batch: _Pass, scale: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Graph: the last backward pass; gradients (times `scale`) averaged over passes and ranks, and the wait for them. Clears `sums`.

        Of a rank with shards its parts of them.
        """
        loss, gradients = self._compiled_backward(batch, scale, sends=with_allreduce)
        waited = tf.zeros((), tf.float64)
        if self._shares_gradients:
            gradients, waited = self._reduce(gradients, with_allreduce=with_allreduce)
        gradients = {
            name: gradient + self.sums[name] if self.sums else gradient for name, gradient in gradients.items()
        }
        if with_allreduce and not self._shares_gradients:
            gradients, waited = self._timed_allreduce(gradients)
        for name, value in self.sums.items():
            with tf.control_dependencies([gradients[name]]):
                value.assign(tf.zeros_like(value))
        return loss, gradients, waited

    def _backward(
        self, batch: _Pass, scale: tf.Tensor, *, sends: bool = True
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """One pass's share of the mean loss, and its gradients (times `scale`) by canonical name.

        Of parameters that ranks share they are this rank's parts of the averages, or, unless it `sends` them, of its own.
        """
        parameters = self.model.trained
        if self.shards:
            self.shards.sends = sends
            self.shards.take_kept()  # of another graph
        with tf.GradientTape() as tape:
            loss = self._share_of_loss(batch)
            scaled = loss * scale
        gradients = tape.gradient(scaled, list(parameters.values()))
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]  # the embedding's gradient is sparse
        return loss, dict(zip(parameters, dense, strict=True))

    def _share_of_loss(self, batch: _Pass) -> tf.Tensor:
        starts = batch.starts if self.point.has_layout else None
        places = batch.places if batch.places.shape[0] else None
        seed = batch.seed if self.point.dropout else None
        loss = self.model.loss(batch.inputs, batch.targets, starts=starts, places=places, seed=seed)
        return loss / batch.count

    def _reduce(
        self, gradients: dict[str, tf.Tensor], *, with_allreduce: bool
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """This rank's parts of the gradients' averages, and the wait for them, or of its own."""
        if self.shards.mode.of_parameters:
            return gradients, tf.zeros((), tf.float64)
        if with_allreduce:
            return self._timed_allreduce(gradients)
        return self.shards.take(gradients), tf.zeros((), tf.float64)

    def _timed_allreduce(self, gradients: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """What `_allreduce` returns, and from the last own gradient to the last average the seconds, 0 where nothing says them."""
        if not self.times_exchange:
            return self._allreduce(gradients), tf.zeros((), tf.float64)
        begun = _read_clock(gradients)
        averages = self._allreduce(gradients)
        return averages, _read_clock(averages) - begun

    def _allreduce(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """In a graph each all-reduce runs as soon as its gradient exists, beside the rest of the backward pass."""
        for name, gradient in reversed(gradients.items()):  # the order in which a backward pass yields them
            self.allreduce.start(name, gradient)
        averages = self.allreduce.finish()
        return {name: averages[name] for name in self.model.trained}

    def _update(
        self, gradients: dict[str, tf.Tensor], scale: tf.Tensor, learning_rate: tf.Tensor, *, is_shared: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Unscale, clip and update; (norm before clipping, whether an fp16 overflow dropped the update).

        `is_shared`: all ranks' parts together have that norm, and overflow. What overflowed on the wire alone updates nothing either: training ends there, and the step can be looked at again.
        """
        scale = tf.cast(scale, tf.float64)
        norm = self.shards.global_norm if is_shared else global_norm
        gradient_norm = norm(list(gradients.values())) / scale
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / scale
        factor = tf.cast(factor, self.model.parameter_dtype)

        def update() -> tf.Tensor:
            final = {name: gradient * factor for name, gradient in gradients.items()}
            self.optimizer.update(final, learning_rate=learning_rate)
            return tf.constant(False)

        if not self.can_overflow:
            return gradient_norm, update()
        skipped = tf.cond(tf.math.is_finite(gradient_norm), update, lambda: tf.constant(self.precision.loss_scaling))
        return gradient_norm, skipped

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        total = tf.zeros((), self.model.parameter_dtype)
        for batch in self._split(inputs, targets, layout):
            loss, _ = self._run(self._compiled_forward, batch)
            total += loss
        return float(total)

    def backward(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> float:
        loss, self.kept = self._gradients_of_rank(inputs, targets, layout, loss_scale=loss_scale)
        return float(loss)

    def allreduce_alone(self) -> None:
        if self.server:
            self.server.average(self._to_numpy(self.kept))
            return
        self._run(self._allreduce_kept, *self.kept.values())

    def allreduce_kept(self) -> tuple[Arrays, Arrays]:
        own = self._to_numpy(self.kept)
        if self.server:
            return own, self.server.average(own)
        with self._keeping_own_state():
            return own, self._to_numpy(self._whole(self._run(self._allreduce_kept, *self.kept.values())))

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        documents = () if starts is None else (starts,)
        return self._run(self._sample_losses, inputs, targets, *documents).numpy()

    def logits(
        self, inputs: np.ndarray, starts: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        with tf.device(self.device):
            given = {"starts": starts, "places": places}
            documents = {name: tf.convert_to_tensor(each) for name, each in given.items() if each is not None}
            return self.model.logits(tf.convert_to_tensor(inputs), **documents).numpy()

    def next_sentence_logits(self, inputs: np.ndarray) -> np.ndarray:
        with tf.device(self.device):
            return self.model.next_sentence_logits(tf.convert_to_tensor(inputs)).numpy()

    def gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None = None,
        *,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> Arrays:
        scale, is_averaged = self._scalar(loss_scale), with_allreduce and not self.server
        if self._shares_gradients and not is_averaged:
            return self._to_numpy(self._gradients_of_rank(inputs, targets, layout, loss_scale=loss_scale)[1])
        with tf.device(self.device), self._keeping_own_state():
            *earlier, last = self._split(inputs, targets, layout)
            for batch in earlier:
                self._accumulate(batch, scale, with_allreduce=is_averaged)
            _, gradients, _ = self._averaged_gradients(last, scale, with_allreduce=is_averaged)
        arrays = self._to_numpy(self._whole(gradients) if is_averaged else gradients)
        return self.server.average(arrays) if self.server and with_allreduce else arrays

    def gradient_norms(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> GradientNorms:
        norms, scale = [], self._scalar(loss_scale)
        with self._keeping_own_state():
            for index, batch in enumerate(self._split(inputs, targets, layout)):
                norm, averaged = self._run(self._norms, batch, scale, is_last=index == len(inputs) - 1)
                norms.append(float(norm))
        return GradientNorms(micro_batches=norms, averaged=float(averaged))

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def average_parameters(self) -> None:
        self._run(self.average.apply)

    def mean_parameters(self) -> Arrays:
        return self._to_numpy(self._run(self.average.mean))

    def parameters(self) -> Arrays:
        return {name: value.numpy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = self.parameters()
        if self.server:  # which has the optimizer's state, and of parameters the newest
            trained, optimizer = self.server.state()
            parameters |= trained
        else:
            optimizer = self.shards.join(self.optimizer.state()) if self.shards else self.optimizer.state()
        state = {f"parameters/{name}": value for name, value in parameters.items()}
        state |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        state |= self.average.state() if self.average else {}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for name in self._whole_names:
            self.model.parameters[name].assign(state[f"parameters/{name}"])
        if self.shards:
            self.shards.load(state)
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        optimizer = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        if self.server:
            self.server.load(self.parameters(), optimizer)
        else:
            self.optimizer.load_state(self.shards.cut(optimizer) if self.shards else optimizer)
        if self.average:
            self.average.load_state(state)

    def own_state(self) -> Arrays:
        if self.average:
            return self.average.own_state()
        return self.allreduce.state() if isinstance(self.allreduce, FeedbackAllReduce) else {}

    def load_own_state(self, state: Arrays) -> None:
        if self.average:
            self.average.load_own_state(state)
        elif isinstance(self.allreduce, FeedbackAllReduce):
            self.allreduce.load_state(state)

    def close(self) -> None:
        if self.server:
            self.server.leave()

    @contextlib.contextmanager
    def _keeping_own_state(self) -> Iterator[None]:
        """What is sent in here is no step's: afterwards this rank has the state of its own that it had before."""
        own = self.own_state()
        yield
        self.load_own_state(own)

    def _train_on_server(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None,
        *,
        learning_rate: float,
        loss_scale: float,
    ) -> StepResult:
        """One step with a parameter server: push this rank's gradients, pull the updated parameters."""
        loss, gradients = self._gradients_of_rank(inputs, targets, layout, loss_scale=loss_scale)
        self.passes += len(inputs)
        arrays, begun = self._to_numpy(gradients), time.perf_counter()
        pushed = self.server.update(arrays, learning_rate=learning_rate, loss_scale=loss_scale)
        waited = time.perf_counter() - begun
        for name, value in pushed.parameters.items():
            self.model.parameters[name].assign(value)
        return StepResult(
            loss=float(loss),
            gradient_norm=pushed.gradient_norm,
            skipped=pushed.skipped,
            exchange_wait_seconds=waited,
            staleness=pushed.staleness,
        )

    def _gradients_of_rank(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None, *, loss_scale: float
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Mean loss and gradients (times `loss_scale`) of tokens [A, B, T] of this rank alone."""
        scale = self._scalar(loss_scale)
        *earlier, last = passes = self._split(inputs, targets, layout)
        if self._shares_gradients:  # whose sums have room for parts alone
            losses, gradients = zip(*(self._run(self._own_gradients, each, scale) for each in passes), strict=True)
            return tf.add_n(losses), {name: tf.add_n([each[name] for each in gradients]) for name in self.model.trained}
        loss = self._accumulate_all(earlier, scale, with_allreduce=False)
        last_loss, gradients, _ = self._run(self._averaged_gradients, last, scale, with_allreduce=False)
        return loss + last_loss, gradients

    def _split(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None) -> list[_Pass]:
        """The passes of one step, from tokens [A, B, T]."""
        nothing = [()] * len(inputs)
        if layout is None:
            starts, places, counts = nothing, nothing, [self._scalar(len(inputs))] * len(inputs)
        else:
            starts, places = layout.starts, nothing if layout.places is None else layout.places
            counts = [self._scalar(len(inputs) / weight) for weight in layout.weights]
        seeds = [
            dropout_seed(self.point, rank=self.rank, pass_number=self.passes + index) for index in range(len(inputs))
        ]
        return [
            _Pass(
                *map(tf.convert_to_tensor, arrays),
                *(tf.constant(each, tf.int32) for each in documents),
                count,
                tf.constant(seed or (0, 0)),
            )
            for *arrays, documents, count, seed in zip(
                inputs, targets, zip(starts, places, strict=True), counts, seeds, strict=True
            )
        ]

    def _own_gradients(self, batch: _Pass, scale: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Graph: one backward pass; its share of the step's mean loss, and this rank's gradients, whole."""
        loss, gradients = self._compiled_backward(batch, scale, sends=False)
        return loss, (self.shards.take_kept() if self.shards else {}) or gradients

    def _norms(self, batch: _Pass, scale: tf.Tensor, *, is_last: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Graph: one backward pass; the norm of its gradients and, after the last pass, of their average over passes and ranks."""
        _, gradients = self._own_gradients(batch, scale)  # 1 / A of the pass's
        scale, count = tf.cast(scale, tf.float64), tf.cast(batch.count, tf.float64)
        norm = global_norm(list(gradients.values())) / scale * count
        averaged = tf.zeros_like(norm)
        if self._shares_gradients:
            gradients = self._allreduce(gradients)
        for name, value in self.sums.items():
            gradients[name] = value.assign_add(gradients[name]).read_value()
        if is_last:
            gradients = gradients if self._shares_gradients else self._allreduce(gradients)
            norm_of = self.shards.global_norm if self.shards else global_norm
            averaged = norm_of(list(gradients.values())) / scale
            for value in self.sums.values():
                with tf.control_dependencies([averaged]):
                    value.assign(tf.zeros_like(value))
        return norm, averaged

    def _allreduce_kept(self, *gradients: tf.Tensor) -> dict[str, tf.Tensor]:
        """Graph: the all-reduce of `gradients`, in the order of what trains; a graph that returned nothing would be pruned."""
        averages = self._allreduce(dict(zip(self.model.trained, gradients, strict=True)))
        if self.shards:
            self.shards.spread()
        return averages

    def _forward(self, batch: _Pass) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Graph: a forward pass; its share of the mean loss, and the activations that a backward pass would read.

        A graph that returns the loss alone is faster than a step's forward pass: TensorFlow fuses operations whose
        results nothing else reads, and frees them at once. So the backward pass is traced too, the activations that it
        reads are returned, and the rest of it is pruned.
        """
        if self.shards:
            self.shards.sends = False
            self.shards.take_kept()
        with tf.GradientTape() as tape:
            loss = self._share_of_loss(batch)
        graph = loss.graph
        before = set(graph.get_operations())
        tape.gradient(loss, list(self.model.trained.values()))
        after = (operation for operation in graph.get_operations() if operation not in before)
        read = {tensor.ref(): tensor for operation in after for tensor in operation.inputs if tensor.op in before}
        return loss, [tensor for tensor in read.values() if tensor.op.type not in _NOT_COMPUTED]

    def _sample_losses(self, inputs: tf.Tensor, targets: tf.Tensor, starts: tf.Tensor | None = None) -> tf.Tensor:
        """Graph: the loss of each sample, without dropout."""
        return self.model.sample_losses(inputs, targets, starts=starts)

    def _run(self, function: Callable[..., Any], *arguments: np.ndarray | tf.Tensor | _Pass, **choices: bool) -> Any:
        """Results of `function` as a graph, which is traced at its first call and once for each value of `choices`."""
        name = function.__name__
        if name not in self._graphs:
            self._graphs[name] = tf.function(function, autograph=False)
        with tf.device(self.device):
            return self._graphs[name](*tf.nest.map_structure(tf.convert_to_tensor, arguments), **choices)

    def _whole(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Averaged gradients as whole tensors, of which a rank with shards has parts."""
        return self.shards.gather(gradients) if self.shards else gradients

    def _to_numpy(self, tensors: dict[str, tf.Tensor]) -> Arrays:
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self.model.parameter_dtype)


def clip_factor(gradient_norm: tf.Tensor, *, max_norm: float) -> tf.Tensor:
    """Factor, at most 1, that brings gradients of global L2 norm `gradient_norm` to at most `max_norm`; 0: no clipping."""
    return tf.minimum(max_norm / (gradient_norm + 1e-6), 1.0) if max_norm else tf.ones_like(gradient_norm)


def _read_clock(tensors: dict[str, tf.Tensor]) -> tf.Tensor:
    """Graph: the time in seconds at which the last of `tensors` has been computed."""
    with tf.control_dependencies(list(tensors.values())):
        return tf.timestamp()
