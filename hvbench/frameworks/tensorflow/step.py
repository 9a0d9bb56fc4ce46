"""One training step in TensorFlow: accumulate, all-reduce once, clip, update."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays, GradientNorms, StepResult
from hvbench.frameworks.parameter_server import ServedPeers, ServerClient
from hvbench.frameworks.ranks import NoPeers
from hvbench.frameworks.tensorflow.allreduce import make_allreduce
from hvbench.frameworks.tensorflow.model import Model
from hvbench.frameworks.tensorflow.optimizer import global_norm, make_optimizer
from hvbench.frameworks.tensorflow.runtime import Runtime
from hvbench.spec.point import Point
from hvbench.training.dropout import dropout_seed
from hvbench.training.precision import Precision

# What a backward pass reads that no forward pass computes: weights and constants.
_NOT_COMPUTED = ("ReadVariableOp", "Placeholder", "Const")

# One backward pass as a graph takes it: inputs, targets, how many passes its step has, and the seed of its dropout.
_Pass = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


class Trainer:
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.device = "GPU:0" if runtime.device == "cuda" else "CPU:0"
        self.rank = runtime.rank
        self.passes = 0  # backward passes that training has done: the place in the sequence of dropout's masks
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        with tf.device(self.device):
            self.optimizer = make_optimizer(self.model.parameters, point=point)
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
        if self.server and with_allreduce:
            return self._train_on_server(inputs, targets, learning_rate=learning_rate, loss_scale=loss_scale)
        scale = self._scalar(loss_scale)
        *earlier, last = self._split(inputs, targets)
        loss = self._accumulate_all(earlier, scale)
        last_loss, gradient_norm, skipped = self._run(
            "_update", last, scale, self._scalar(learning_rate), with_allreduce=with_allreduce
        )
        self.passes += len(inputs)
        return StepResult(loss=float(loss + last_loss), gradient_norm=float(gradient_norm), skipped=bool(skipped))

    def forward(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        total = tf.zeros((), self.model.parameter_dtype)
        for each in self._split(inputs, targets):
            loss, _ = self._run("_forward", each)
            total += loss
        return float(total)

    def backward(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> float:
        loss, self.kept = self._gradients_of_rank(inputs, targets, loss_scale=loss_scale)
        return float(loss)

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
        scale = self._scalar(loss_scale)
        with tf.device(self.device):
            *earlier, last = self._split(inputs, targets)
            for each in earlier:
                self._accumulate(each, scale)
            _, gradients = self._averaged_gradients(last, scale, with_allreduce=with_allreduce and not self.server)
        arrays = self._to_numpy(gradients)
        return self.server.average(arrays) if self.server and with_allreduce else arrays

    def gradient_norms(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> GradientNorms:
        norms, scale = [], self._scalar(loss_scale)
        for index, each in enumerate(self._split(inputs, targets)):
            norm, averaged = self._run("_norms", each, scale, is_last=index == len(inputs) - 1)
            norms.append(float(norm))
        return GradientNorms(micro_batches=norms, averaged=float(averaged))

    def parameters(self) -> Arrays:
        return {name: value.numpy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = {f"parameters/{name}": value for name, value in self.parameters().items()}
        state = parameters | {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Arrays) -> None:
        for name, parameter in self.model.parameters.items():
            parameter.assign(state[f"parameters/{name}"])
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        self.optimizer.load_state({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})

    def close(self) -> None:
        if self.server:
            self.server.leave()

    def _train_on_server(
        self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float, loss_scale: float
    ) -> StepResult:
        """Push this rank's gradients, pull the parameters that the server has made of them."""
        loss, gradients = self._gradients_of_rank(inputs, targets, loss_scale=loss_scale)
        self.passes += len(inputs)
        values, gradient_norm, skipped = self.server.update(
            self._to_numpy(gradients), learning_rate=learning_rate, loss_scale=loss_scale
        )
        for name, value in values.items():
            self.model.parameters[name].assign(value)
        return StepResult(loss=float(loss), gradient_norm=gradient_norm, skipped=skipped)

    def _gradients_of_rank(
        self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Mean loss and gradients (times `loss_scale`) of this rank's samples."""
        scale = self._scalar(loss_scale)
        *earlier, last = self._split(inputs, targets)
        loss = self._accumulate_all(earlier, scale)
        last_loss, gradients = self._run("_averaged_gradients", last, scale, with_allreduce=False)
        return loss + last_loss, gradients

    def _split(self, inputs: np.ndarray, targets: np.ndarray) -> list[_Pass]:
        """The passes of one step."""
        count = self._scalar(len(inputs))
        seeds = [
            dropout_seed(self.point, rank=self.rank, pass_number=self.passes + index) for index in range(len(inputs))
        ]
        return [
            (*map(tf.convert_to_tensor, tokens), count, tf.constant(seed or (0, 0)))
            for *tokens, seed in zip(inputs, targets, seeds, strict=True)
        ]

    def _accumulate_all(self, passes: list[_Pass], scale: tf.Tensor) -> tf.Tensor:
        loss = tf.zeros((), self.model.parameter_dtype)
        for each in passes:
            loss += self._run("_accumulate", each, scale)
        return loss

    def _accumulate(self, batch: _Pass, scale: tf.Tensor) -> tf.Tensor:
        """Graph: one backward pass, added to the sums; its share of the mean loss."""
        loss, gradients = self._backward(batch, scale)
        for name, gradient in gradients.items():
            self.sums[name].assign_add(gradient)
        return loss

    def _norms(self, batch: _Pass, scale: tf.Tensor, *, is_last: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Graph: one backward pass and the norm of its gradients; after the last pass also that of all averaged."""
        _, gradients = self._backward(batch, scale)  # each its share of the mean over the accumulation steps
        _, _, passes, _ = batch
        scale, passes = tf.cast(scale, tf.float64), tf.cast(passes, tf.float64)
        norm = global_norm(list(gradients.values())) / scale * passes
        averaged = tf.zeros_like(norm)
        for name, value in self.sums.items():
            gradients[name] = value.assign_add(gradients[name]).read_value()
        if is_last:
            averaged = global_norm(list(self._allreduce(gradients).values())) / scale
            for value in self.sums.values():
                with tf.control_dependencies([averaged]):
                    value.assign(tf.zeros_like(value))
        return norm, averaged

    def _averaged_gradients(
        self, batch: _Pass, scale: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Graph: the last backward pass; gradients (times `scale`) averaged over accumulation steps and ranks."""
        loss, gradients = self._backward(batch, scale)
        gradients = {
            name: gradient + self.sums[name] if self.sums else gradient for name, gradient in gradients.items()
        }
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

    def _forward(self, batch: _Pass) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Graph: a forward pass; its share of the mean loss, and all that a backward pass would read of it.

        A graph that gives the loss alone is not a step's forward pass: TensorFlow fuses operations whose results nobody
        else reads, and frees them at once. So the backward pass is traced, what it reads is returned, and it is pruned.
        """
        with tf.GradientTape() as tape:
            loss = self._share_of_loss(batch)
        graph = loss.graph
        before = set(graph.get_operations())
        tape.gradient(loss, list(self.model.parameters.values()))
        after = (operation for operation in graph.get_operations() if operation not in before)
        read = {tensor.ref(): tensor for operation in after for tensor in operation.inputs if tensor.op in before}
        return loss, [tensor for tensor in read.values() if tensor.op.type not in _NOT_COMPUTED]

    def _update(
        self, batch: _Pass, scale: tf.Tensor, learning_rate: tf.Tensor, *, with_allreduce: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Graph: the whole end of a step, from the last backward pass to the update."""
        loss, gradients = self._averaged_gradients(batch, scale, with_allreduce=with_allreduce)
        scale = tf.cast(scale, tf.float64)
        gradient_norm = global_norm(list(gradients.values())) / scale
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / scale
        factor = tf.cast(factor, self.model.parameter_dtype)

        def update() -> tf.Tensor:
            final = {name: gradient * factor for name, gradient in gradients.items()}
            self.optimizer.update(final, learning_rate=learning_rate)
            return tf.constant(False)

        if not self.precision.loss_scaling:
            return loss, gradient_norm, update()
        skipped = tf.cond(tf.math.is_finite(gradient_norm), update, lambda: tf.constant(True))
        return loss, gradient_norm, skipped

    def _backward(self, batch: _Pass, scale: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        parameters = self.model.parameters
        with tf.GradientTape() as tape:
            loss = self._share_of_loss(batch)
            scaled = loss * scale
        gradients = tape.gradient(scaled, list(parameters.values()))
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        return loss, dict(zip(parameters, dense, strict=True))

    def _share_of_loss(self, batch: _Pass) -> tf.Tensor:
        inputs, targets, passes, seed = batch
        return self.model.loss(inputs, targets, seed=seed if self.point.dropout else None) / passes

    def _loss(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return self.model.loss(inputs, targets)

    def _run(self, graph: str, *arguments: np.ndarray | tf.Tensor | _Pass, **choices: bool):
        """The graph's results; it is traced once for each value of `choices`."""
        with tf.device(self.device):
            return self._graphs[graph](*tf.nest.map_structure(tf.convert_to_tensor, arguments), **choices)

    def _to_numpy(self, tensors: dict[str, tf.Tensor]) -> Arrays:
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self.model.parameter_dtype)


def clip_factor(gradient_norm: tf.Tensor, *, max_norm: float) -> tf.Tensor:
    """What to multiply gradients by so that their global norm is at most `max_norm`; 0 switches clipping off."""
    return tf.minimum(max_norm / (gradient_norm + 1e-6), 1.0) if max_norm else tf.ones_like(gradient_norm)
