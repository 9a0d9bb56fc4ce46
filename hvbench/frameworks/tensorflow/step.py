"""One training step in TensorFlow: accumulate, all-reduce once, clip, update."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, StepResult
from hvbench.frameworks.parameter_server import ServedPeers, ServerClient
from hvbench.frameworks.peers import NoPeers
from hvbench.frameworks.tensorflow.allreduce import make_allreduce
from hvbench.frameworks.tensorflow.model import Model
from hvbench.frameworks.tensorflow.optimizer import Optimizer
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.spec import Point
from hvbench.training.precision import Precision

# What a backward pass reads that no forward pass computes: weights and constants.
_NOT_COMPUTED = ("ReadVariableOp", "Placeholder", "Const")


class Trainer:
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.device = "GPU:0" if runtime.device == "cuda" else "CPU:0"
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        with tf.device(self.device):
            self.optimizer = Optimizer(self.model.parameters, point)
            self.sums: dict[str, tf.Variable] = {}
            if point.gradient_accumulation_steps > 1:
                self.sums = {name: tf.Variable(tf.zeros_like(p)) for name, p in self.model.parameters.items()}
        peers = NoPeers() if point.strategy == "local" else runtime.peers
        self.allreduce = make_allreduce(
            peers, compression=point.compression, reduction=point.reduction, predivide=point.gradient_predivide
        )
        self.server = ServerClient(point, peers) if isinstance(peers, ServedPeers) else None
        self.kept: dict[str, tf.Tensor] = {}
        self._graphs = {
            name: tf.function(getattr(self, name), autograph=False)
            for name in ("_accumulate", "_averaged_gradients", "_update", "_forward", "_allreduce_kept", "_loss")
        }

    def train_step(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        learning_rate: float,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> StepResult:
        if self.server and with_allreduce:
            return self._train_on_server(inputs, targets, learning_rate=learning_rate, loss_scale=loss_scale)
        scale = self._scalar(loss_scale)
        loss = self._accumulate_all_but_last(inputs, targets, scale)
        last_loss, gradient_norm, skipped = self._run(
            "_update", inputs[-1], targets[-1], scale, self._scalar(learning_rate), with_allreduce=with_allreduce
        )
        return StepResult(
            loss=float(loss + last_loss), gradient_norm=float(gradient_norm), skipped=bool(skipped)
        )

    def forward(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        total = tf.zeros((), self.model.parameter_dtype)
        for index in range(len(inputs)):
            loss, _ = self._run("_forward", inputs[index], targets[index])
            total += loss
        return float(total)

    def backward(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> float:
        scale = self._scalar(loss_scale)
        loss = self._accumulate_all_but_last(inputs, targets, scale)
        last_loss, self.kept = self._run("_averaged_gradients", inputs[-1], targets[-1], scale, with_allreduce=False)
        return float(loss + last_loss)

    def allreduce_alone(self) -> None:
        if self.server:
            self.server.average(self._to_numpy(self.kept))
            return
        self._run("_allreduce_kept", *self.kept.values())

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        return float(self._run("_loss", inputs, targets))

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        with tf.device(self.device):
            return self.model.logits(tf.convert_to_tensor(inputs)).numpy()

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float, with_allreduce: bool = True
    ) -> Arrays:
        inputs, targets, scale = tf.convert_to_tensor(inputs), tf.convert_to_tensor(targets), self._scalar(loss_scale)
        with tf.device(self.device):
            for index in range(len(inputs) - 1):
                self._accumulate(inputs[index], targets[index], scale)
            _, gradients = self._averaged_gradients(
                inputs[-1], targets[-1], scale, with_allreduce=with_allreduce and not self.server
            )
        arrays = self._to_numpy(gradients)
        return self.server.average(arrays) if self.server and with_allreduce else arrays

    def parameters(self) -> Arrays:
        return {name: value.numpy() for name, value in self.model.parameters.items()}

    def close(self) -> None:
        if self.server:
            self.server.leave()

    def _train_on_server(
        self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float, loss_scale: float
    ) -> StepResult:
        """Push this rank's gradients, pull the parameters that the server has made of them."""
        scale = self._scalar(loss_scale)
        loss = self._accumulate_all_but_last(inputs, targets, scale)
        last_loss, gradients = self._run("_averaged_gradients", inputs[-1], targets[-1], scale, with_allreduce=False)
        values, gradient_norm, skipped = self.server.update(
            self._to_numpy(gradients), learning_rate=learning_rate, loss_scale=loss_scale
        )
        for name, value in values.items():
            self.model.parameters[name].assign(value)
        return StepResult(loss=float(loss + last_loss), gradient_norm=gradient_norm, skipped=skipped)

    def _accumulate_all_but_last(self, inputs: np.ndarray, targets: np.ndarray, scale: tf.Tensor) -> tf.Tensor:
        loss = tf.zeros((), self.model.parameter_dtype)
        for index in range(len(inputs) - 1):
            loss += self._run("_accumulate", inputs[index], targets[index], scale)
        return loss

    def _accumulate(self, inputs: tf.Tensor, targets: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Graph: one backward pass, added to the sums; its share of the mean loss."""
        loss, gradients = self._backward(inputs, targets, scale)
        for name, gradient in gradients.items():
            self.sums[name].assign_add(gradient)
        return loss

    def _averaged_gradients(
        self, inputs: tf.Tensor, targets: tf.Tensor, scale: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Graph: the last backward pass; gradients (times `scale`) averaged over accumulation steps and ranks."""
        loss, gradients = self._backward(inputs, targets, scale)
        gradients = {name: gradient + self.sums[name] if self.sums else gradient for name, gradient in gradients.items()}
        if with_allreduce:
            gradients = self._allreduce(gradients)
        for name, value in self.sums.items():
            with tf.control_dependencies([gradients[name]]):
                value.assign(tf.zeros_like(value))
        return loss, gradients

    def _allreduce(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, gradient in reversed(gradients.items()):  # the order in which a backward pass yields them
            self.allreduce.start(name, gradient)
        averages = self.allreduce.finish()
        return {name: averages[name] for name in self.model.parameters}

    def _allreduce_kept(self, *gradients: tf.Tensor) -> dict[str, tf.Tensor]:
        """Graph: the all-reduce of `gradients`, in the order of the parameters. They are returned, or it would be pruned."""
        return self._allreduce(dict(zip(self.model.parameters, gradients, strict=True)))

    def _forward(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Graph: a forward pass; its share of the mean loss, and all that a backward pass would read of it.

        A graph that gives the loss alone is not a step's forward pass: TensorFlow fuses operations whose results nobody
        else reads, and frees them at once. So the backward pass is traced, what it reads is returned, and it is pruned.
        """
        with tf.GradientTape() as tape:
            loss = self.model.loss(inputs, targets) / self.point.gradient_accumulation_steps
        graph = loss.graph
        before = set(graph.get_operations())
        tape.gradient(loss, list(self.model.parameters.values()))
        after = (operation for operation in graph.get_operations() if operation not in before)
        read = {tensor.ref(): tensor for operation in after for tensor in operation.inputs if tensor.op in before}
        return loss, [tensor for tensor in read.values() if tensor.op.type not in _NOT_COMPUTED]

    def _update(
        self,
        inputs: tf.Tensor,
        targets: tf.Tensor,
        scale: tf.Tensor,
        learning_rate: tf.Tensor,
        *,
        with_allreduce: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Graph: the whole end of a step, from the last backward pass to the update."""
        loss, gradients = self._averaged_gradients(inputs, targets, scale, with_allreduce=with_allreduce)
        gradient_norm = tf.linalg.global_norm(list(gradients.values())) / scale
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / scale

        def update() -> tf.Tensor:
            final = {name: gradient * factor for name, gradient in gradients.items()}
            self.optimizer.update(final, learning_rate=learning_rate)
            return tf.constant(False)

        if not self.precision.loss_scaling:
            return loss, gradient_norm, update()
        skipped = tf.cond(tf.math.is_finite(gradient_norm), update, lambda: tf.constant(True))
        return loss, gradient_norm, skipped

    def _backward(
        self, inputs: tf.Tensor, targets: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        parameters = self.model.parameters
        with tf.GradientTape() as tape:
            loss = self.model.loss(inputs, targets) / self.point.gradient_accumulation_steps
            scaled = loss * scale
        gradients = tape.gradient(scaled, list(parameters.values()))
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return loss, dict(zip(parameters, dense, strict=True))

    def _loss(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return self.model.loss(inputs, targets)

    def _run(self, graph: str, *arguments: np.ndarray | tf.Tensor, **choices: bool):
        """The graph's results; it is traced once for each value of `choices`."""
        with tf.device(self.device):
            return self._graphs[graph](*(tf.convert_to_tensor(argument) for argument in arguments), **choices)

    def _to_numpy(self, tensors: dict[str, tf.Tensor]) -> Arrays:
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self.model.parameter_dtype)


def clip_factor(gradient_norm: tf.Tensor, *, max_norm: float) -> tf.Tensor:
    """What to multiply gradients by so that their global norm is at most `max_norm`; 0 switches clipping off."""
    return tf.minimum(max_norm / (gradient_norm + 1e-6), 1.0) if max_norm else tf.ones_like(gradient_norm)
