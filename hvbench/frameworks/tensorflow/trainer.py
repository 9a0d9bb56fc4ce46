"""A training in TensorFlow: its steps, and the parts of one by themselves.

The breakdown of a step's time times these parts, evaluations and the parity check look at what they return.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, GradientNorms
from hvbench.frameworks.tensorflow.execution import compiled
from hvbench.frameworks.tensorflow.norms import global_norm
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.frameworks.tensorflow.step import Pass, TrainingStep
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.layout import Layout

# Operations whose results a backward pass reads although no forward pass computes them: weights and constants.
_NOT_COMPUTED = ("ReadVariableOp", "Placeholder", "Const")


class Trainer(TrainingStep):
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)
        self.kept: dict[str, tf.Tensor] = {}  # gradients of the last `backward`, for `allreduce_alone`
        self._compiled_forward = compiled(self._forward, choice=point.compile, device=runtime.device)

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
        exchange = self._exchange_kept_momenta if self.sends_momenta else self._allreduce_kept
        self._run(exchange, *self.kept.values())

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

    def mean_parameters(self) -> Arrays:
        return self._to_numpy(self._run(self.average.mean))

    def _forward(self, batch: Pass) -> tuple[tf.Tensor, list[tf.Tensor]]:
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

    def _norms(self, batch: Pass, scale: tf.Tensor, *, is_last: bool) -> tuple[tf.Tensor, tf.Tensor]:
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

    def _exchange_kept_momenta(self, *gradients: tf.Tensor) -> dict[str, tf.Tensor]:
        """Graph: what `_allreduce_kept` is where momenta are exchanged, with `gradients` in their place."""
        return self.allreduce.average_momenta(dict(zip(self.model.trained, gradients, strict=True)))[0]

    def _sample_losses(self, inputs: tf.Tensor, targets: tf.Tensor, starts: tf.Tensor | None = None) -> tf.Tensor:
        """Graph: the loss of each sample, without dropout."""
        return self.model.sample_losses(inputs, targets, starts=starts)

    @contextlib.contextmanager
    def _keeping_own_state(self) -> Iterator[None]:
        """What is sent in here is no step's: afterwards this rank has the state of its own that it had before."""
        own = self.own_state()
        yield
        self.load_own_state(own)

    def _whole(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Averaged gradients as whole tensors, of which a rank with shards has parts."""
        return self.shards.gather(gradients) if self.shards else gradients
