"""The interfaces that both twins implement: all that the rest of hvbench knows of a framework.

Arrays cross this border as numpy, scalars as Python floats. A twin is a folder of the same files, with the same public names in the
same order and with the same signatures: `runtime` (process, device), `ranks` (connects the ranks), `model` (forward pass and loss),
`layers` (what multiplies), `adaptation` (what is added to them), `families` (norms, positions, heads and MLP, a module each), `attention`, `execution` (what is compiled and
recomputed), `input` (the framework's own input pipeline), `norms`, `optimizer`, `operations` (Horovod's), `allreduce`, `compression` (all-reduces
that send less than the gradients, a module each), `local_sgd` (the average of parameters), `hierarchical` (an all-reduce in two
levels), `shard` (parts of a training's state), `state` (a training), `step` (one update), `trainer` (its parts), `collective` (one all-reduce by itself),
`ceiling` (matrix products, memory passes and all-reduces alone, for `hvbench.worker.ceiling` to time).

Shapes: A accumulation steps (backward passes per update), B micro-batch, T sequence length, V vocabulary. Token arrays
are int32. Targets are tokens, or tags, of the shape of the inputs, of pairs of texts the first a class; of a classifier, classes without the last
dimension, and of regression numbers, float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hvbench.frameworks.ranks import Ranks
from hvbench.training.layout import Batch, Layout

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer update, as measured on this rank."""

    loss: float  # mean over this rank's samples of the step, before the update; nats
    gradient_norm: float  # global L2 norm of the averaged gradient, unscaled, before clipping
    skipped: bool  # an fp16 overflow: no update was made
    # From this rank's last own gradient to the averages (a server's parameters): the exchange, and slower ranks. None: nothing says it,
    # as where nothing is exchanged, on a GPU, whose host runs ahead, and in PyTorch's DistributedDataParallel.
    exchange_wait_seconds: float | None = None
    staleness: int | None = None  # of parameter servers: updates by other ranks since this rank pulled its parameters


@dataclass(frozen=True, kw_only=True)
class GradientNorms:
    """Global L2 norms of the gradients of one step's batch, unscaled: before and after averaging."""

    micro_batches: list[float]  # [A]: of the mean gradient of each of this rank's micro-batches
    averaged: float  # of the mean over accumulation steps and ranks: the same on every rank


class Runtime(Protocol):
    """A framework in one worker process: its threads, its device and its connection to the other ranks."""

    rank: int
    world_size: int
    device: str  # "cpu" or "cuda"
    ranks: Ranks

    def versions(self) -> dict[str, str]:
        """Versions and build facts of the framework, for a record's environment."""

    def use_tf32(self, is_on: bool) -> None:
        """Let products and convolutions of float32 round their operands to TF32 from now on, or not, as at first.

        Raises RuntimeError where the device cannot multiply in TF32.
        """

    def synchronize(self) -> None:
        """Wait until the device has finished all work queued on it."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, ordered by rank: the same list on all ranks, bit for bit."""

    def peak_device_memory_bytes(self) -> int | None:
        """High-water mark of the device allocator since `release`; None on the CPU."""

    def release(self) -> None:
        """Free the memory that the last point used, and reset the high-water mark."""

    def shutdown(self) -> None:
        """Disconnect from the other ranks."""


class Input(Protocol):
    """The batches of consecutive steps through the framework's own input pipeline, prepared in advance by its workers.

    Its constructor takes `batches`, which workers read in threads or forked processes; `steps`; and `workers`, with 0 of which a batch is
    read when it is asked for.
    """

    def train_batch(self, step: int) -> Batch:
        """The batch of `step`, which has to be the next one; raises ValueError for another."""

    def close(self) -> None:
        """End the workers."""


class TrainingState(Protocol):
    """What a training is made of: model, optimizer and exchange between the ranks, and what of them a checkpoint keeps."""

    @property
    def sends_momenta(self) -> bool:
        """Whether the ranks exchange momenta in the next step, and no gradients (1-bit Adam's second phase)."""

    def rewind(self, passes: int) -> None:
        """Go back so many backward passes in the sequence of dropout masks; forward where negative.

        A batch is only looked at again with the masks that it had in its step.
        """

    def parameters(self) -> Arrays:
        """Canonical name -> current value."""

    def state(self) -> Arrays:
        """All that a step changes: `parameters/NAME`, `optimizer/…`, `outer/…` and `passes`, with the same names in every twin."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`, whichever twin it comes from, read array by array. Raises KeyError where one is missing."""

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Continue from these parameters, by canonical name; nothing else changes. Not of ranks that share them."""

    def own_state(self) -> Arrays:
        """What of a training differs from rank to rank, by names of its own (`residuals/NAME`, say), as copies; empty where all ranks have the same.

        A checkpoint keeps it for each rank, and the same rank gets it back in a training of as many ranks. Of what runs parts of a step
        only `allreduce_alone` changes it.
        """

    def load_own_state(self, state: Arrays) -> None:
        """Continue from an `own_state` of this rank in a training of as many ranks. Raises KeyError where an array is missing."""

    def close(self) -> None:
        """End this rank's training; a parameter server waits for that."""


class TrainingStep(TrainingState, Protocol):
    """One update of a training."""

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
        """One optimizer update: A forward and backward passes, one all-reduce, clipping, update.

        Args:
            inputs: Tokens [A, B, T] of this rank.
            targets: Tokens [A, B, T], or classes or numbers [A, B].
            layout: Where documents lie in the rows; None: a row is one piece of text. The loss is then the mean over the targets
                of all passes and ranks: a pass counts by its weight.
            learning_rate: Of this update.
            loss_scale: Factor on the loss before the backward passes, divided out again before clipping.
            with_allreduce: False: each rank updates with its own gradients; everything else is the same.

        Returns:
            Loss, gradient norm, and whether an fp16 overflow dropped the update.
        """

    def average_parameters(self) -> None:
        """End a round of local updates: all ranks continue from one model (`hvbench.training.local_sgd`)."""


class Trainer(TrainingStep, Protocol):
    """The training of one point: its updates, and the parts of one by themselves."""

    def forward(self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None) -> float:
        """Forward passes alone of [A, B, T], activations kept as for backward passes; the mean loss. No state changes."""

    def backward(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> float:
        """Forward and backward passes of [A, B, T], no all-reduce, no update; the mean loss. Keeps the gradients."""

    def allreduce_alone(self) -> None:
        """All-reduce the gradients that the last `backward` kept, casts for compression included; as many momenta where these are exchanged."""

    def allreduce_kept(self) -> tuple[Arrays, Arrays]:
        """This rank's gradients that the last `backward` kept, and their averages over the ranks, compression included."""

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        """Loss [B] of each sample of tokens [B, T], the mean over its targets, without an update and without dropout.

        Of pairs of texts it is that of their tokens.

        `starts` [B, T] of `Layout`, where rows hold documents.
        """

    def logits(
        self, inputs: np.ndarray, starts: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Logits [B, T, V] of tokens [B, T], [B, T, tags] or [samples, classes], in the parameters' dtype (float32).

        `starts` [B, T] and `places` [samples] of `Layout`, where rows hold documents, and each several samples.
        """

    def next_sentence_logits(self, inputs: np.ndarray) -> np.ndarray:
        """Logits [B, 2] of pairs of texts [B, T], that the second follows the first and that it does not; of `next_sentence` alone."""

    def gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        layout: Layout | None = None,
        *,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> Arrays:
        """Canonical name -> gradient, of what trains, of [A, B, T], averaged over accumulation steps and ranks, still times `loss_scale`."""

    def gradient_norms(
        self, inputs: np.ndarray, targets: np.ndarray, layout: Layout | None = None, *, loss_scale: float
    ) -> GradientNorms:
        """Norms of the gradients of a step's batch [A, B, T], with the dropout masks of the next step; no state changes."""

    def mean_parameters(self) -> Arrays:
        """Canonical name -> mean over the ranks, of what trains by local updates; no state changes."""


class Collective(Protocol):
    """All-reduces of float32 values [elements], sent as gradients are, for `hvbench allreduce` to time.

    They follow each other at once, and each has values of its own: `place` numbers them from 0.
    """

    def fill(self, values: np.ndarray, *, place: int) -> None:
        """Set this rank's contribution [elements] to the all-reduce at `place`."""

    def run(self, place: int) -> None:
        """Average over the ranks, compression included."""

    def result(self, place: int) -> np.ndarray:
        """The averages [elements] that `run` left on this rank."""
