"""One training step in numpy: accumulate, all-reduce once, clip, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hvbench.frameworks.numpy.norms import clip_factor, global_norm
from hvbench.frameworks.numpy.runtime import Runtime
from hvbench.frameworks.numpy.state import TrainingState

from hvbench.frameworks.contract import Arrays, StepResult
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.layout import Layout


class Pass(NamedTuple):
    """The input of one backward pass."""

    inputs: np.ndarray  # [B, T]
    targets: np.ndarray  # [B, T], or classes [B]
    starts: np.ndarray | None  # [B, T], where documents begin
    places: np.ndarray | None  # [samples], where each begins among the rows
    count: float  # A of its step, over the pass's weight
    seed: None  # numpy has no dropout


class TrainingStep(TrainingState):
    """See `hvbench.frameworks.contract.TrainingStep`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)

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

    def average_parameters(self) -> None:
        self.average.apply()

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
            for batch in self._split(inputs, targets, layout):
                loss, backward = self._loss(batch)
                total += loss / batch.count
                for name, gradient in backward(loss_scale / batch.count).items():
                    sums[name] = sums[name] + gradient if name in sums else gradient
        return total, self._average(sums) if with_allreduce else sums

    def _average(self, gradients: Arrays) -> Arrays:
        for name, gradient in reversed(gradients.items()):  # the order in which a backward pass yields them
            self.allreduce.start(name, gradient)
        averages = self.allreduce.finish()
        return {name: averages[name] for name in gradients}

    def _loss(self, batch: Pass) -> tuple[float, Callable[[float], Arrays]]:
        """The mean loss of a pass, and its gradients as a function of a scale."""
        return self.model.loss(batch.inputs, batch.targets, starts=batch.starts, places=batch.places)

    def _split(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None) -> list[Pass]:
        """The passes of a step of tokens [A, B, T]."""
        count = len(inputs)
        documents = [layout.of_pass(index) if layout else () for index in range(count)]
        weights = layout.weights if layout else np.ones(count)
        return [
            Pass(*tokens, *(*found, None, None)[:2], count / float(weight), None)
            for *tokens, found, weight in zip(inputs, targets, documents, weights, strict=True)
        ]
