"""A training in numpy: its steps, and the parts of one by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hvbench.frameworks.numpy.norms import global_norm
from hvbench.frameworks.numpy.runtime import Runtime
from hvbench.frameworks.numpy.step import TrainingStep

from hvbench.frameworks.contract import Arrays, GradientNorms
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.layout import Layout


class Trainer(TrainingStep):
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)
        self.kept: Arrays = {}

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        return sum(self._loss(batch)[0] / batch.count for batch in self._split(inputs, targets, layout))

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

    def mean_parameters(self) -> Arrays:
        return self.average.mean()
