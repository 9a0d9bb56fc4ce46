"""One training step in PyTorch: accumulate gradients, all-reduce them once, clip, update.

`Trainer.train_step` and the three methods below it are the whole step, in the order in which they run. The other public
methods run parts of a step, for the breakdown of its time, for evaluations and for the parity check.

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from hvbench.frameworks.contract import Arrays, GradientNorms, StepResult
from hvbench.frameworks.parameter_server import ServedRanks, ServerClient
from hvbench.frameworks.pytorch.compression import FeedbackAllReduce, make_exchange
from hvbench.frameworks.pytorch.local_sgd import ParameterAverage
from hvbench.frameworks.pytorch.model import Model
from hvbench.frameworks.pytorch.optimizer import global_norm, make_optimizer
from hvbench.frameworks.pytorch.ranks import NativeRanks
from hvbench.frameworks.pytorch.runtime import Runtime
from hvbench.frameworks.pytorch.shard import make_shards
from hvbench.frameworks.ranks import SingleRank
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.dropout import Seed, dropout_seed
from hvbench.training.layout import Layout


class Trainer:
    """See `hvbench.frameworks.contract.Trainer`."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, runtime: Runtime) -> None:
        self.point = point
        self.precision = precision
        self.device = runtime.device
        self.rank = runtime.rank
        self.can_overflow = precision.loss_scaling or COMPRESSIONS[point.compression].wire.is_compressed
        self.passes = 0  # backward passes done in training: the index into the sequence of dropout's seeds
        runtime.use_tf32(precision.uses_tf32)
        self.model = Model(point, weights, precision=precision, device=runtime.device)
        ranks = runtime.ranks if STRATEGIES[point.strategy].exchanges else SingleRank()
        self.shards = make_shards(point, self.model, rank=runtime.rank, world_size=ranks.world_size)
        if self.shards:
            self.optimizer = make_optimizer(self.shards.parts, point=point, norms=self.shards.measure_norms)
        else:
            self.optimizer = make_optimizer(self.model.trained, point=point)
        self.allreduce = self.shards or make_exchange(ranks, point, rank=runtime.rank, device=runtime.device)
        self.average = ParameterAverage(point, self.optimizer, ranks) if point.has_local_updates else None
        self.server = ServerClient(point, ranks, weights) if isinstance(ranks, ServedRanks) else None
        self.ddp = _wrap(self.model) if isinstance(ranks, NativeRanks) else None
        self.kept: dict[str, torch.Tensor] = {}  # gradients of the last `backward`, for `allreduce_alone`
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
        loss, gradients = self._averaged_gradients(
            inputs, targets, layout, loss_scale=loss_scale, with_allreduce=with_allreduce
        )
        self.passes += len(inputs)
        is_shared = self.shards is not None and with_allreduce
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
        passes = self._split(inputs, targets, layout)
        gradient_accumulation_steps = len(passes)
        self._forget_gradients()
        total = torch.zeros((), dtype=self.model.parameter_dtype, device=self.device)
        for index, (weight, *batch) in enumerate(passes):
            # Only the last pass yields final sums, so only they are sent, while it still runs. Shards may sum parts.
            is_last = index == gradient_accumulation_steps - 1
            is_sent = with_allreduce and (is_last or self._shares_gradients)
            self.sends_gradients = is_sent and self.ddp is None
            if self.shards:
                self.shards.sends = is_sent
            seed = self._dropout_seed(first + index)
            loss = self._pass_loss(*batch, seed=seed, is_sent=is_sent) * weight
            loss = loss / gradient_accumulation_steps
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
    def _whole_names(self) -> list[str]:
        """Names of the parameters that this rank holds whole."""
        is_shared = self.shards is not None and self.shards.mode.of_parameters
        return [name for name in self.model.parameters if not (is_shared and name in self.model.trained)]

    @property
    def _shares_gradients(self) -> bool:
        """Whether this rank keeps sums of its parts alone, and reduces the gradients of each pass."""
        return self.shards is not None and self.shards.mode.of_gradients

    def _forget_gradients(self) -> None:
        for parameter in self.model.trained.values():
            parameter.grad = None

    def _pass_loss(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        starts: torch.Tensor | None,
        places: torch.Tensor | None,
        *,
        seed: Seed | None,
        is_sent: bool,
    ) -> torch.Tensor:
        """Mean loss of tokens [B, T]; `is_sent`: its backward pass ends in the all-reduce.

        DistributedDataParallel decides on that all-reduce in its forward pass.
        """
        if self.ddp is None:
            return self.model.loss(inputs, targets, starts=starts, places=places, seed=seed)
        with contextlib.nullcontext() if is_sent else self.ddp.no_sync():
            return self.ddp(inputs, targets, starts, places, seed=seed)

    def _on_gradient(self, name: str, parameter: torch.nn.Parameter) -> None:
        """Called by autograd as soon as a parameter's gradient is complete: its all-reduce overlaps the passes left."""
        if (
            self.sends_gradients and parameter.grad is not None
        ):  # none is where ranks share the parameters: shards have received it
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
        factor = clip_factor(gradient_norm, max_norm=self.point.max_gradient_norm) / loss_scale
        # A GPU's factor is not looked at: the host would wait, and then the GPU for it.
        if self.device != "cpu" or factor != 1.0:
            torch._foreach_mul_(list(gradients.values()), factor.to(self.model.parameter_dtype))
        self.optimizer.update(gradients, learning_rate=learning_rate)
        return gradient_norm, False

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        # Gradients stay enabled: autograd records its graph and keeps activations, as in a step.
        total = torch.zeros((), dtype=self.model.parameter_dtype, device=self.device)
        for index, (weight, *batch, starts, places) in enumerate(self._split(inputs, targets, layout)):
            seed = self._dropout_seed(index)
            loss = self.model.loss(*batch, starts=starts, places=places, seed=seed) * weight
            total += loss.detach() / len(inputs)
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

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def average_parameters(self) -> None:
        with torch.no_grad():
            self.average.apply()

    def mean_parameters(self) -> Arrays:
        with torch.no_grad():
            return self._to_numpy(self.average.mean())

    def parameters(self) -> Arrays:
        with torch.no_grad():
            return {name: value.detach().cpu().numpy().copy() for name, value in self.model.parameters.items()}

    def state(self) -> Arrays:
        parameters = self.parameters()
        if self.server:  # which has the optimizer's state, and of parameters the newest
            trained, optimizer = self.server.state()
            parameters |= trained
        else:
            optimizer = self.shards.join(self.optimizer.state()) if self.shards else self.optimizer.state()
        state = {f"parameters/{name}": value for name, value in parameters.items()}
        state |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        state |= self.average.state() if self.average else {}
        return state | {"passes": np.array(self.passes, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name in self._whole_names:
                self.model.parameters[name].copy_(torch.from_numpy(state[f"parameters/{name}"]))
        if self.shards:
            self.shards.load(state)
        self.passes = int(state["passes"])
        prefix = "optimizer/"
        optimizer = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        if self.server:
            self.server.load(self.parameters(), optimizer)
        else:
            self.optimizer.load_state(self.shards.cut(optimizer) if self.shards else optimizer)
        if self.average:
            self.average.load_state(state)

    def own_state(self) -> Arrays:
        if self.average:
            return self.average.own_state()
        return self.allreduce.state() if isinstance(self.allreduce, FeedbackAllReduce) else {}

    def load_own_state(self, state: Arrays) -> None:
        if self.average:
            self.average.load_own_state(state)
        elif isinstance(self.allreduce, FeedbackAllReduce):
            self.allreduce.load_state(state)

    def close(self) -> None:
        if self.server:
            self.server.leave()

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

    def _split(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None) -> list[tuple[Any, ...]]:
        """The passes of one step, from tokens [A, B, T]: weight, inputs [B, T], targets, starts of documents or None, places of samples or None."""
        tensors = zip(self._tokens(inputs), self._targets(targets), strict=True)
        if layout is None:
            return [(1.0, *pair, None, None) for pair in tensors]
        places = [None] * len(inputs) if layout.places is None else self._tokens(layout.places)
        return [
            (float(weight), *pair, *documents)
            for weight, pair, *documents in zip(
                layout.weights, tensors, self._tokens(layout.starts), places, strict=True
            )
        ]

    def _starts(self, starts: np.ndarray | None) -> torch.Tensor | None:
        return None if starts is None else self._tokens(starts)

    def _whole(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Averaged gradients as whole tensors, of which a rank with shards has parts."""
        return self.shards.gather(gradients) if self.shards else gradients

    def _to_numpy(self, tensors: dict[str, torch.Tensor]) -> Arrays:
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def _dropout_seed(self, index: int) -> Seed | None:
        return dropout_seed(self.point, rank=self.rank, pass_number=self.passes + index)

    def _targets(self, targets: np.ndarray) -> torch.Tensor:
        """Tokens or classes as indices, numbers as they are."""
        if targets.dtype.kind == "f":
            return torch.from_numpy(targets).to(self.device, non_blocking=True)
        return self._tokens(targets)

    def _tokens(self, tokens: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(tokens).long().to(self.device, non_blocking=True)


def clip_factor(gradient_norm: torch.Tensor, *, max_norm: float) -> torch.Tensor:
    """Factor, at most 1, that brings gradients of global L2 norm `gradient_norm` to at most `max_norm`; 0: no clipping."""
    return torch.clamp(max_norm / (gradient_norm + 1e-6), max=1.0) if max_norm else torch.ones_like(gradient_norm)


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
        starts: torch.Tensor | None,
        places: torch.Tensor | None,
        *,
        seed: Seed | None,
    ) -> torch.Tensor:
        return self.model_loss(inputs, targets, starts=starts, places=places, seed=seed)
