"""One training step in TensorFlow: accumulate, all-reduce once, clip, update."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, GradientNorms, StepResult
from hvbench.frameworks.tensorflow.allreduce import GradientAllReduce
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
        self.allreduce = GradientAllReduce(compression=point.compression, world_size=runtime.world_size)
        self.kept: dict[str, tf.Tensor] = {}
        self._graphs = {
            name: tf.function(getattr(self, name), autograph=False)
            for name in (
                "_accumulate", "_averaged_gradients", "_update", "_forward", "_allreduce_kept", "_loss", "_norms",
            )
        }  # fmt: skip

    def train_step(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        learning_rate: float,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> StepResult:
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
            _, gradients = self._averaged_gradients(inputs[-1], targets[-1], scale, with_allreduce=with_allreduce)
        return {name: gradient.numpy() for name, gradient in gradients.items()}

    def gradient_norms(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> GradientNorms:
        norms, scale = [], self._scalar(loss_scale)
        for index in range(len(inputs)):
            norm, averaged = self._run("_norms", inputs[index], targets[index], scale, is_last=index == len(inputs) - 1)
            norms.append(float(norm))
        return GradientNorms(micro_batches=norms, averaged=float(averaged))

    def parameters(self) -> Arrays:
        return {name: value.numpy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = {f"parameters/{name}": value for name, value in self.parameters().items()}
        return parameters | {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}

    def load_state(self, state: Arrays) -> None:
        for name, parameter in self.model.parameters.items():
            parameter.assign(state[f"parameters/{name}"])
        prefix = "optimizer/"
        self.optimizer.load_state({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})

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

    def _norms(
        self, inputs: tf.Tensor, targets: tf.Tensor, scale: tf.Tensor, *, is_last: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Graph: one backward pass and the norm of its gradients; after the last pass also that of all averaged."""
        _, gradients = self._backward(inputs, targets, scale)  # each its share of the mean over the accumulation steps
        norm = tf.linalg.global_norm(list(gradients.values())) / scale * self.point.gradient_accumulation_steps
        averaged = tf.zeros_like(norm)
        for name, value in self.sums.items():
            gradients[name] = value.assign_add(gradients[name]).read_value()
        if is_last:
            averaged = tf.linalg.global_norm(list(self._allreduce(gradients).values())) / scale
            for value in self.sums.values():
                with tf.control_dependencies([averaged]):
                    value.assign(tf.zeros_like(value))
        return norm, averaged

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

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self.model.parameter_dtype)


def clip_factor(gradient_norm: tf.Tensor, *, max_norm: float) -> tf.Tensor:
    """What to multiply gradients by so that their global norm is at most `max_norm`; 0 switches clipping off."""
    return tf.minimum(max_norm / (gradient_norm + 1e-6), 1.0) if max_norm else tf.ones_like(gradient_norm)
