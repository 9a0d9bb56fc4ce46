"""One training step in TensorFlow: accumulate gradients, all-reduce them once, clip, update.

`TrainingStep.train_step` and the methods below it are the whole step, in the order in which they run. Methods whose
docstring begins with "Graph:" are traced by `_run` into one `tf.function` each.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, StepResult
from hvbench.frameworks.tensorflow.execution import compiled
from hvbench.frameworks.tensorflow.norms import clip_factor, global_norm
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.frameworks.tensorflow.state import TrainingState
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.dropout import dropout_seed
from hvbench.training.layout import Layout


class Pass(NamedTuple):
    """The input of one backward pass, all tensors: a graph is not traced again when their values change."""

    inputs: tf.Tensor  # [B, T]
    targets: tf.Tensor  # [B, T], or classes [B]
    starts: tf.Tensor  # [B, T], where documents begin; [0] where rows hold none
    places: tf.Tensor  # [samples], where each begins among the rows; [0] where each has a row
    # A of its step, over the pass's weight where it has one: the pass contributes 1 / A of the step's mean loss.
    count: tf.Tensor
    seed: tf.Tensor  # [2], of its dropout


class TrainingStep(TrainingState):
    """See `hvbench.frameworks.contract.TrainingStep`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)
        self.can_overflow = precision.loss_scaling or COMPRESSIONS[point.compression].wire.is_compressed
        # A GPU's operations run behind the graph's; where parameters are gathered, ranks wait for each other throughout the passes.
        is_shared = SHARDS[point.shard].of_parameters
        self.times_exchange = runtime.device == "cpu" and self.ranks.world_size > 1 and not is_shared
        self.sums: dict[str, tf.Variable] = {}  # gradients of the passes before the last
        if point.gradient_accumulation_steps > 1:
            summed = self.shards.parts if self._shares_gradients else self.model.trained
            with tf.device(self.device):
                self.sums = {name: tf.Variable(tf.zeros_like(p)) for name, p in summed.items()}
        self._graphs: dict[str, Callable[..., Any]] = {}
        self._compiled_backward = compiled(self._backward, choice=point.compile, device=runtime.device)

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
        sends_momenta = self.sends_momenta
        loss = self._accumulate_all(earlier, scale, with_allreduce=with_allreduce and not sends_momenta)
        last_loss, gradient_norm, skipped, waited = self._run(
            self._finish_by_momenta if sends_momenta else self._finish_step,
            last,
            scale,
            self._scalar(learning_rate),
            with_allreduce=with_allreduce,
        )
        self.passes += len(inputs)
        return StepResult(
            loss=float(loss + last_loss),
            gradient_norm=float(gradient_norm),
            skipped=bool(skipped),
            exchange_wait_seconds=float(waited) if with_allreduce and self.times_exchange else None,
        )

    def average_parameters(self) -> None:
        self._run(self.average.apply)

    def _accumulate_all(self, passes: list[Pass], scale: tf.Tensor, *, with_allreduce: bool) -> tf.Tensor:
        """Run `passes` and add their gradients up; their share of the step's mean loss."""
        loss = tf.zeros((), self.model.parameter_dtype)
        for batch in passes:
            loss += self._run(self._accumulate, batch, scale, with_allreduce=with_allreduce)
        return loss

    def _accumulate(self, batch: Pass, scale: tf.Tensor, *, with_allreduce: bool) -> tf.Tensor:
        """Graph: one backward pass, its gradients added to `sums`; its share of the step's mean loss."""
        loss, gradients = self._compiled_backward(batch, scale, sends=with_allreduce)
        if self._shares_gradients:
            gradients, _ = self._reduce(gradients, with_allreduce=with_allreduce)
        for name, gradient in gradients.items():
            self.sums[name].assign_add(gradient)
        return loss

    def _finish_step(
        self, batch: Pass, scale: tf.Tensor, learning_rate: tf.Tensor, *, with_allreduce: bool
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
        self, batch: Pass, scale: tf.Tensor, *, with_allreduce: bool
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

    @property
    def _shares_gradients(self) -> bool:
        """Whether this rank keeps sums of its parts alone, and reduces the gradients of each pass."""
        return self.shards is not None and self.shards.mode.of_gradients

    def _backward(self, batch: Pass, scale: tf.Tensor, *, sends: bool = True) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
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

    def _share_of_loss(self, batch: Pass) -> tf.Tensor:
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

    def _finish_by_momenta(
        self, batch: Pass, scale: tf.Tensor, learning_rate: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Graph: what `_finish_step` is in 1-bit Adam's second phase: ranks clip gradients, each by the norm of its own, and exchange momenta."""
        loss, gradients, waited = self._averaged_gradients(batch, scale, with_allreduce=False)
        scale = tf.cast(scale, tf.float64)
        gradient_norm = global_norm(list(gradients.values())) / scale
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / scale
        nothing = tf.constant(np.nan, gradient_norm.dtype)
        # Of what is not finite somewhere nothing is: it shows in all that is sent.
        factor = tf.where(tf.math.is_finite(gradient_norm), factor, nothing)
        factor = tf.cast(factor, self.model.parameter_dtype)
        steps = self.optimizer.mix({name: gradient * factor for name, gradient in gradients.items()})
        if with_allreduce:
            begun = _read_clock(steps) if self.times_exchange else waited
            steps, are_finite = self.allreduce.average_momenta(steps)
            # All ranks see in the same step what is not finite on one.
            gradient_norm = tf.where(are_finite, gradient_norm, nothing)
            waited = _read_clock(steps) - begun if self.times_exchange else waited
        self.optimizer.update_by(steps, learning_rate=learning_rate)
        return loss, gradient_norm, tf.constant(False), waited

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

    def _own_gradients(self, batch: Pass, scale: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Graph: one backward pass; its share of the step's mean loss, and this rank's gradients, whole."""
        loss, gradients = self._compiled_backward(batch, scale, sends=False)
        return loss, (self.shards.take_kept() if self.shards else {}) or gradients

    def _split(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None) -> list[Pass]:
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
            Pass(
                *map(tf.convert_to_tensor, arrays),
                *(tf.constant(each, tf.int32) for each in documents),
                count,
                tf.constant(seed or (0, 0)),
            )
            for *arrays, documents, count, seed in zip(
                inputs, targets, zip(starts, places, strict=True), counts, seeds, strict=True
            )
        ]

    def _run(self, function: Callable[..., Any], *arguments: np.ndarray | tf.Tensor | Pass, **choices: bool) -> Any:
        """Results of `function` as a graph, which is traced at its first call and once for each value of `choices`."""
        name = function.__name__
        if name not in self._graphs:
            self._graphs[name] = tf.function(function, autograph=False)
        with tf.device(self.device):
            return self._graphs[name](*tf.nest.map_structure(tf.convert_to_tensor, arguments), **choices)

    def _to_numpy(self, tensors: dict[str, tf.Tensor]) -> Arrays:
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self.model.parameter_dtype)


def _read_clock(tensors: dict[str, tf.Tensor]) -> tf.Tensor:
    """Graph: the time in seconds at which the last of `tensors` has been computed."""
    with tf.control_dependencies(list(tensors.values())):
        return tf.timestamp()
