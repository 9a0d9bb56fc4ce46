"""One training step in PyTorch: accumulate gradients, all-reduce them once, clip, update.

`TrainingStep.train_step` and the methods below it are the whole step, in the order in which they run.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import NamedTuple

import numpy as np
import torch

from hvbench.frameworks.contract import Arrays, StepResult
from hvbench.frameworks.pytorch.model import Model
from hvbench.frameworks.pytorch.norms import clip_factor, global_norm
from hvbench.frameworks.pytorch.ranks import NativeRanks
from hvbench.frameworks.pytorch.runtime import Runtime
from hvbench.frameworks.pytorch.shard import _ZeroRedundancy
from hvbench.frameworks.pytorch.state import TrainingState
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.dropout import Seed, dropout_seed
from hvbench.training.layout import Layout


class Pass(NamedTuple):
    """The input of one backward pass."""

    inputs: torch.Tensor  # [B, T]
    targets: torch.Tensor  # [B, T], or classes [B]
    starts: torch.Tensor | None  # [B, T], where documents begin
    places: torch.Tensor | None  # [samples], where each begins among the rows
    # A of its step, over the pass's weight where it has one: the pass contributes 1 / A of the step's mean loss.
    count: float
    seed: Seed | None  # of its dropout


class TrainingStep(TrainingState):
    """See `hvbench.frameworks.contract.TrainingStep`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        super().__init__(point, weights, precision=precision, runtime=runtime)
        self.can_overflow = precision.loss_scaling or COMPRESSIONS[point.compression].wire.is_compressed
        self.ddp = _wrap(self.model) if isinstance(self.ranks, NativeRanks) else None
        self.sends_gradients = False  # whether the running backward pass starts all-reduces
        self.exchange_wait_seconds: float | None = None  # of the last all-reduce of a step; see `StepResult`
        this = weakref.ref(self)  # a hook that referred to the trainer would keep it, and its memory, alive
        for name, parameter in self.model.trained.items():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: this()._on_gradient(name, p))

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
        if self.sends_momenta:
            choices = {"learning_rate": learning_rate, "loss_scale": loss_scale, "with_exchange": with_allreduce}
            return self._train_by_momenta(inputs, targets, layout, **choices)
        loss, gradients = self._averaged_gradients(
            inputs, targets, layout, loss_scale=loss_scale, with_allreduce=with_allreduce
        )
        self.passes += len(inputs)
        is_shared = self.shards is not None and with_allreduce
        if isinstance(self.optimizer, _ZeroRedundancy):
            self.optimizer.spreads = with_allreduce
        if self.shards and not is_shared:
            gradients = self.shards.take(gradients)
        gradient_norm, skipped = self._update(
            gradients, learning_rate=learning_rate, loss_scale=loss_scale, is_shared=is_shared
        )
        gradients.clear()
        self._forget_gradients()  # now, while a GPU still computes; a step begins with what it would wait for
        if is_shared:
            self.shards.spread()
        return StepResult(
            loss=loss.item(),
            gradient_norm=gradient_norm.item(),
            skipped=skipped,
            exchange_wait_seconds=self.exchange_wait_seconds if with_allreduce else None,
        )

    def average_parameters(self) -> None:
        with torch.no_grad():
            self.average.apply()

    def _averaged_gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None,
        *,
        loss_scale: float,
        with_allreduce: bool,
        first: int = 0,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss and gradients (times `loss_scale`) of tokens [A, B, T], averaged over passes and ranks: this rank's parts, if it has shards.

        `first` is the number of the first of these passes in its step, which decides on their dropout masks.
        """
        self._forget_gradients()
        total = torch.zeros((), dtype=self.model.parameter_dtype, device=self.device)
        passes = self._split(inputs, targets, layout, first=first)
        for batch in passes:
            # Only the last pass yields final sums, so only they are sent, while it still runs. Shards may sum parts.
            is_sent = with_allreduce and (batch is passes[-1] or self._shares_gradients)
            self.sends_gradients = is_sent and self.ddp is None
            if self.shards:
                self.shards.sends = is_sent
            loss = self._pass_loss(batch, is_sent=is_sent) / batch.count
            (loss * loss_scale).backward()  # adds to each parameter's .grad, then calls `_on_gradient`
            total += loss.detach()
        averages = self._wait_for_averages() if with_allreduce and self.ddp is None else {}
        if self.shards and not with_allreduce:
            averages = self.shards.take_kept()
        return total, {name: averages.get(name, p.grad) for name, p in self.model.trained.items()}

    def _wait_for_averages(self) -> dict[str, torch.Tensor]:
        """The averages of the gradients that the backward pass has sent; how long they took is kept, where ranks have any to wait for."""
        begun = time.perf_counter()
        averages = self.allreduce.finish()
        is_shared = SHARDS[self.point.shard].of_parameters  # then ranks wait for each other throughout the passes
        if self.device == "cpu" and self.allreduce.world_size > 1 and not is_shared:
            self.exchange_wait_seconds = time.perf_counter() - begun
        return averages

    @property
    def _shares_gradients(self) -> bool:
        """Whether this rank keeps sums of its parts alone, and reduces the gradients of each pass."""
        return self.shards is not None and self.shards.mode.of_gradients

    def _forget_gradients(self) -> None:
        for parameter in self.model.trained.values():
            parameter.grad = None

    def _pass_loss(self, batch: Pass, *, is_sent: bool) -> torch.Tensor:
        """Mean loss of a pass; `is_sent`: its backward pass ends in the all-reduce.

        DistributedDataParallel decides on that all-reduce in its forward pass.
        """
        documents = {"starts": batch.starts, "places": batch.places}
        if self.ddp is None:
            return self.model.loss(batch.inputs, batch.targets, **documents, seed=batch.seed)
        with contextlib.nullcontext() if is_sent else self.ddp.no_sync():
            return self.ddp(batch.inputs, batch.targets, **documents, seed=batch.seed)

    def _on_gradient(self, name: str, parameter: torch.nn.Parameter) -> None:
        """Called by autograd as soon as a parameter's gradient is complete: its all-reduce overlaps the passes left."""
        # None is where ranks share the parameters: shards have received it.
        if self.sends_gradients and parameter.grad is not None:
            self.allreduce.start(name, parameter.grad)
            if self._shares_gradients:
                parameter.grad = None

    def _update(
        self, gradients: dict[str, torch.Tensor], *, learning_rate: float, loss_scale: float, is_shared: bool
    ) -> tuple[torch.Tensor, bool]:
        """Unscale, clip and update; (norm before clipping, whether an fp16 overflow dropped the update).

        `is_shared`: all ranks' parts together have that norm, and overflow. What overflowed on the wire alone updates nothing either: training ends there, and the step can be looked at again.
        """
        norm = self.shards.global_norm if is_shared else global_norm
        gradient_norm = norm(list(gradients.values())) / loss_scale
        if self.can_overflow and not gradient_norm.isfinite():
            return gradient_norm, self.precision.loss_scaling
        self._multiply(gradients, clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / loss_scale)
        self.optimizer.update(gradients, learning_rate=learning_rate)
        return gradient_norm, False

    def _multiply(self, gradients: dict[str, torch.Tensor], factor: torch.Tensor) -> None:
        """Multiply gradients by a number, in place."""
        # A GPU's factor is not looked at: the host would wait, and then the GPU for it.
        if self.device != "cpu" or factor != 1.0:
            torch._foreach_mul_(list(gradients.values()), factor.to(self.model.parameter_dtype))

    def _train_by_momenta(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None,
        *,
        learning_rate: float,
        loss_scale: float,
        with_exchange: bool,
    ) -> StepResult:
        """One step of 1-bit Adam's second phase: ranks clip gradients, each by the norm of its own, and exchange momenta."""
        loss, gradients = self._averaged_gradients(inputs, targets, layout, loss_scale=loss_scale, with_allreduce=False)
        self.passes += len(inputs)
        gradient_norm, waited = global_norm(list(gradients.values())) / loss_scale, None
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / loss_scale
        # Of what is not finite somewhere nothing is: it shows in all that is sent.
        self._multiply(gradients, torch.where(gradient_norm.isfinite(), factor, torch.nan))
        steps = self.optimizer.mix(gradients)
        if with_exchange:
            begun = time.perf_counter()
            steps, are_finite = self.allreduce.average_momenta(steps)
            # All ranks see in the same step what is not finite on one.
            gradient_norm = torch.where(are_finite, gradient_norm, torch.nan)
            waited = time.perf_counter() - begun if self.device == "cpu" else None
        self.optimizer.update_by(steps, learning_rate=learning_rate)
        self._forget_gradients()
        return StepResult(
            loss=loss.item(), gradient_norm=gradient_norm.item(), skipped=False, exchange_wait_seconds=waited
        )

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
        loss, gradients = self._averaged_gradients(inputs, targets, layout, loss_scale=loss_scale, with_allreduce=False)
        self.passes += len(inputs)
        arrays, begun = self._to_numpy(gradients), time.perf_counter()
        pushed = self.server.update(arrays, learning_rate=learning_rate, loss_scale=loss_scale)
        waited = time.perf_counter() - begun
        with torch.no_grad():
            for name, value in pushed.parameters.items():
                self.model.parameters[name].copy_(torch.from_numpy(value))
        return StepResult(
            loss=loss.item(),
            gradient_norm=pushed.gradient_norm,
            skipped=pushed.skipped,
            exchange_wait_seconds=waited,
            staleness=pushed.staleness,
        )

    def _split(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None, *, first: int = 0) -> list[Pass]:
        """The passes of one step, from tokens [A, B, T]; `first` is the number of the first of them in the step."""
        count = len(inputs)
        tensors = zip(self._tokens(inputs), self._targets(targets), strict=True)
        starts, places, weights = [None] * count, [None] * count, [1.0] * count
        if layout is not None:
            starts, weights = self._tokens(layout.starts), layout.weights
            places = places if layout.places is None else self._tokens(layout.places)
        return [
            Pass(
                *pair,
                *documents,
                count / float(weight),
                dropout_seed(self.point, rank=self.rank, pass_number=self.passes + first + index),
            )
            for index, (pair, *documents, weight) in enumerate(zip(tensors, starts, places, weights, strict=True))
        ]

    def _targets(self, targets: np.ndarray) -> torch.Tensor:
        """Tokens or classes as indices, numbers as they are."""
        if targets.dtype.kind == "f":
            return torch.from_numpy(targets).to(self.device, non_blocking=True)
        return self._tokens(targets)

    def _tokens(self, tokens: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(tokens).long().to(self.device, non_blocking=True)

    def _to_numpy(self, tensors: dict[str, torch.Tensor]) -> Arrays:
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def _wrap(model: Model) -> torch.nn.parallel.DistributedDataParallel:
    """The model's loss in DistributedDataParallel, which all-reduces gradients in buckets during its backward pass."""
    return torch.nn.parallel.DistributedDataParallel(_Loss(model), gradient_as_bucket_view=True)


class _Loss(torch.nn.Module):
    """The model's loss as a module's forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model_loss = model.loss
        for name, parameter in model.parameters.items():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        starts: torch.Tensor | None,
        places: torch.Tensor | None,
        seed: Seed | None,
    ) -> torch.Tensor:
        return self.model_loss(inputs, targets, starts=starts, places=places, seed=seed)
