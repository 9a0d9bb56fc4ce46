"""A training in PyTorch: its steps, and the parts of one by themselves.

The breakdown of a step's time times these parts, evaluations and the parity check look at what they return.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from hvbench.frameworks.contract import Arrays, GradientNorms
from hvbench.frameworks.pytorch.norms import global_norm
from hvbench.frameworks.pytorch.runtime import Runtime
from hvbench.frameworks.pytorch.step import TrainingStep
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.layout import Layout


class Trainer(TrainingStep):
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)
        self.kept: dict[str, torch.Tensor] = {}  # gradients of the last `backward`, for `allreduce_alone`

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        # Gradients stay enabled: autograd records its graph and keeps activations, as in a step.
        total = torch.zeros((), dtype=self.model.parameter_dtype, device=self.device)
        for batch in self._split(inputs, targets, layout):
            documents = {"starts": batch.starts, "places": batch.places}
            loss = self.model.loss(batch.inputs, batch.targets, **documents, seed=batch.seed)
            total += loss.detach() / batch.count
        return total.item()

    def backward(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> float:
        loss, self.kept = self._averaged_gradients(inputs, targets, layout, loss_scale=loss_scale, with_allreduce=False)
        return loss.item()

    def allreduce_alone(self) -> None:
        if self.server:
            self.server.average(self._to_numpy(self.kept))
            return
        if self.sends_momenta:
            self.allreduce.average_momenta(self.kept)
            return
        self._average(self.kept)
        if self.shards:
            self.shards.spread()

    def allreduce_kept(self) -> tuple[Arrays, Arrays]:
        own = {name: value.copy() for name, value in self._to_numpy(self.kept).items()}  # some all-reduces sum in place
        if self.server:
            return own, self.server.average(own)
        with self._keeping_own_state():
            averages = self._whole(self._average(self.kept))
        return own, self._to_numpy({name: averages[name] for name in self.kept})

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        with torch.no_grad():
            tensors = self._tokens(inputs), self._targets(targets)
            return self.model.sample_losses(*tensors, starts=self._starts(starts)).cpu().numpy()

    def logits(
        self, inputs: np.ndarray, starts: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        with torch.no_grad():
            documents = {"starts": self._starts(starts), "places": self._starts(places)}
            return self.model.logits(self._tokens(inputs), **documents).cpu().numpy()

    def next_sentence_logits(self, inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.model.next_sentence_logits(self._tokens(inputs)).cpu().numpy()

    def gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None = None,
        *,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> Arrays:
        with self._keeping_own_state():
            _, gradients = self._averaged_gradients(
                inputs, targets, layout, loss_scale=loss_scale, with_allreduce=with_allreduce and not self.server
            )
        arrays = self._to_numpy(self._whole(gradients) if with_allreduce else gradients)
        return self.server.average(arrays) if self.server and with_allreduce else arrays

    def gradient_norms(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> GradientNorms:
        norms, sums, count = [], {}, len(inputs)
        for index in range(count):
            one = slice(index, index + 1)
            batch = inputs[one], targets[one], layout and layout.part(one)
            scale = (
                loss_scale / count
            )  # as in a step, where a pass is 1 / A of the loss: fp16 overflows at the same scale
            _, gradients = self._averaged_gradients(*batch, loss_scale=scale, with_allreduce=False, first=index)
            weight = float(layout.weights[index]) if layout else 1.0
            norms.append(global_norm(list(gradients.values())).item() / loss_scale * count / weight)
            if sums:
                torch._foreach_add_(list(sums.values()), list(gradients.values()))
            sums = sums or gradients
        with self._keeping_own_state():
            averages = self._average(sums)
        norm = self.shards.global_norm if self.shards else global_norm
        averaged = norm([averages[name] for name in sums]).item() / loss_scale
        return GradientNorms(micro_batches=norms, averaged=averaged)

    def mean_parameters(self) -> Arrays:
        with torch.no_grad():
            return self._to_numpy(self.average.mean())

    def _average(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Their averages over the ranks, sent in the order in which a backward pass yields them."""
        for name, gradient in reversed(gradients.items()):
            self.allreduce.start(name, gradient)
        return self.allreduce.finish()

    @contextlib.contextmanager
    def _keeping_own_state(self) -> Iterator[None]:
        """What is sent in here is no step's: afterwards this rank has the state of its own that it had before."""
        own = self.own_state()
        yield
        self.load_own_state(own)

    def _whole(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Averaged gradients as whole tensors, of which a rank with shards has parts."""
        return self.shards.gather(gradients) if self.shards else gradients

    def _starts(self, starts: np.ndarray | None) -> torch.Tensor | None:
        return None if starts is None else self._tokens(starts)
