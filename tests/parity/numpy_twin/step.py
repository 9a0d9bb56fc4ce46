"""One training step in numpy: accumulate, all-reduce once, clip, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hvbench.frameworks.numpy.compression import make_exchange
from hvbench.frameworks.numpy.local_sgd import ParameterAverage
from hvbench.frameworks.numpy.model import Model
from hvbench.frameworks.numpy.optimizer import global_norm, make_optimizer
from hvbench.frameworks.numpy.runtime import Runtime

from hvbench.frameworks.contract import Arrays, GradientNorms, StepResult
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.layout import Layout


class Trainer:
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.passes = 0  # backward passes that training has done
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        self.optimizer = make_optimizer(self.model.trained, point=point)
        self.allreduce = make_exchange(runtime.ranks, point, rank=0, device=runtime.device)
        self.average = ParameterAverage(point, self.optimizer, runtime.ranks) if point.has_local_updates else None
        self.kept: Arrays = {}

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
        loss, gradients = self._averaged_gradients(
            inputs, targets, layout, loss_scale=loss_scale, with_allreduce=with_allreduce
        )
        self.passes += len(inputs)
        gradient_norm = global_norm(list(gradients.values())) / loss_scale
        skipped = self.precision.loss_scaling and not math.isfinite(gradient_norm)
        if not skipped:
            factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / loss_scale
            final = {name: gradient * factor for name, gradient in gradients.items()}
            self.optimizer.update(final, learning_rate=learning_rate)
        return StepResult(loss=loss, gradient_norm=gradient_norm, skipped=skipped)

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        passes = _split(inputs, targets, layout)
        losses = [self.model.loss(*batch, **documents)[0] * weight for *batch, documents, weight in passes]
        return sum(losses) / len(inputs)

    def backward(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> float:
        loss, self.kept = self._averaged_gradients(inputs, targets, layout, loss_scale=loss_scale, with_allreduce=False)
        return loss

    def allreduce_alone(self) -> None:
        self._average(self.kept)

    def allreduce_kept(self) -> tuple[Arrays, Arrays]:
        return self.kept, self._average(self.kept)

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        return self.model.sample_losses(inputs, targets, starts=starts)

    def logits(
        self, inputs: np.ndarray, starts: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        return self.model.logits(inputs, starts=starts, places=places)

    def next_sentence_logits(self, inputs: np.ndarray) -> np.ndarray:
        return self.model.next_sentence_logits(inputs)

    def gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None = None,
        *,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> Arrays:
        choices = {"loss_scale": loss_scale, "with_allreduce": with_allreduce}
        return self._averaged_gradients(inputs, targets, layout, **choices)[1]

    def gradient_norms(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> GradientNorms:
        norms = []
        for index in range(len(inputs)):
            one = slice(index, index + 1)
            alone = layout and replace(layout.part(one), weights=np.ones(1))
            found = self.gradients(inputs[one], targets[one], alone, loss_scale=loss_scale)
            norms.append(global_norm(list(found.values())) / loss_scale)
        averaged = self.gradients(inputs, targets, layout, loss_scale=loss_scale)
        return GradientNorms(micro_batches=norms, averaged=global_norm(list(averaged.values())) / loss_scale)

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def average_parameters(self) -> None:
        self.average.apply()

    def mean_parameters(self) -> Arrays:
        return self.average.mean()

    def parameters(self) -> Arrays:
        return {name: value.copy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = {f"parameters/{name}": value for name, value in self.parameters().items()}
        state = parameters | {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        state |= self.average.state() if self.average else {}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Arrays) -> None:
        for name, parameter in self.model.parameters.items():
            parameter[...] = state[f"parameters/{name}"]
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        self.optimizer.load_state({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
        if self.average:
            self.average.load_state(state)

    def own_state(self) -> Arrays:
        return self.average.own_state() if self.average else {}

    def load_own_state(self, state: Arrays) -> None:
        if self.average:
            self.average.load_own_state(state)

    def close(self) -> None:
        """No server has to know."""

    def _averaged_gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None,
        *,
        loss_scale: float,
        with_allreduce: bool,
    ) -> tuple[float, Arrays]:
        """Mean loss and gradients (times `loss_scale`), averaged over accumulation steps and ranks."""
        total = 0.0
        sums: Arrays = {}
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is for the loss scale to see, not for a log
            for *batch, documents, weight in _split(inputs, targets, layout):
                loss, backward = self.model.loss(*batch, **documents)
                total += loss * weight / len(inputs)
                for name, gradient in backward(loss_scale * weight / len(inputs)).items():
                    sums[name] = sums[name] + gradient if name in sums else gradient
        return total, self._average(sums) if with_allreduce else sums

    def _average(self, gradients: Arrays) -> Arrays:
        for name, gradient in reversed(gradients.items()):  # the order in which a backward pass yields them
            self.allreduce.start(name, gradient)
        averages = self.allreduce.finish()
        return {name: averages[name] for name in gradients}


def _split(inputs: np.ndarray, targets: np.ndarray, layout: Layout | None) -> Iterator[tuple[Any, ...]]:
    """The passes of a step: inputs, targets, where documents and samples begin, and what the pass counts."""
    weights = layout.weights if layout else np.ones(len(inputs))
    names = ("starts", "places")
    documents = [dict(zip(names, layout.of_pass(i) if layout else (), strict=False)) for i in range(len(inputs))]
    return zip(inputs, targets, documents, weights.tolist(), strict=True)


def clip_factor(gradient_norm: float, *, max_norm: float) -> float:
    """What to multiply gradients by so that their global norm is at most `max_norm`; 0 switches clipping off."""
    return min(1.0, max_norm / (gradient_norm + 1e-6)) if max_norm else 1.0
