"""What both twins fulfil, and all that the rest of hvbench knows of a framework.

Arrays cross this border as numpy, scalars as Python floats. A twin has eight files with the same public names in the
same order and with the same signatures: `runtime` (process, device), `peers` (who brings ranks together), `model`,
`optimizer`, `allreduce`, `step`, `collective` (one all-reduce by itself),
`ceiling` (bare products, passes over memory and all-reduces, for `hvbench.worker.ceiling` to time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hvbench.frameworks.ranks import Peers

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer update as this rank saw it."""

    loss: float  # mean over this rank's samples of the step, before the update
    gradient_norm: float  # global L2 norm of the averaged gradient, unscaled, before clipping
    skipped: bool  # fp16 overflow: the update was dropped


@dataclass(frozen=True, kw_only=True)
class GradientNorms:
    """Global L2 norms, unscaled, of the gradients of one step's batch before any averaging and after all of it."""

    micro_batches: list[float]  # of each of this rank's micro-batches, the mean over its own samples
    averaged: float  # over accumulation steps and ranks: the same on every rank


class Runtime(Protocol):
    """A framework in one worker: its threads, its device and its place among the ranks."""

    rank: int
    world_size: int
    device: str  # "cpu" or "cuda"
    peers: Peers

    def versions(self) -> dict[str, str]:
        """Versions and build facts of the framework, for the fingerprint."""

    def synchronize(self) -> None:
        """Wait until the device has done all work given to it."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def gather(self, value: float) -> list[float]:
        """Every rank's `value`, by rank: the same list on all ranks, bit for bit."""

    def peak_device_memory_bytes(self) -> int | None:
        """High-water mark of the device allocator since `release`; None on the CPU."""

    def release(self) -> None:
        """Give back what the last point held, and reset the high-water mark."""

    def shutdown(self) -> None:
        """Leave the other ranks."""


class Trainer(Protocol):
    """One point in training: model, optimizer and all-reduce together."""

    def train_step(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        learning_rate: float,
        loss_scale: float,
        with_allreduce: bool = True,
    ) -> StepResult:
        """One update from int32 arrays of shape (accumulation steps, micro-batch, sequence).

        Without the all-reduce each rank takes its own gradients for the average, in all else the step is the same.
        """

    def forward(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """A step's forward passes alone, keeping what backward passes would read; its mean loss. No state changes."""

    def backward(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> float:
        """A step's forward and backward passes, no all-reduce, no update; its mean loss. The gradients are kept."""

    def allreduce_alone(self) -> None:
        """All-reduce the gradients that the last `backward` kept, casts for compression included."""

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Mean loss of int32 arrays of shape (micro-batch, sequence), without an update."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 logits (micro-batch, sequence, vocabulary) of int32 inputs (micro-batch, sequence)."""

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float, with_allreduce: bool = True
    ) -> Arrays:
        """Canonical name -> gradient, averaged over accumulation steps and ranks, still times `loss_scale`."""

    def gradient_norms(self, inputs: np.ndarray, targets: np.ndarray, *, loss_scale: float) -> GradientNorms:
        """Norms of the gradients of a step's batch (shapes as in `train_step`), for the noise scale; no state changes."""

    def parameters(self) -> Arrays:
        """Canonical name -> current value."""

    def state(self) -> Arrays:
        """All that a step changes: `parameters/NAME`, `optimizer/…` and `passes`, the same in every twin."""

    def load_state(self, state: Arrays) -> None:
        """Go on from a `state`, whichever twin it comes from. Raises KeyError where it lacks something."""

    def close(self) -> None:
        """Say that this rank trains no more; only a parameter server has to know."""


class Collective(Protocol):
    """One all-reduce of float32 values as gradients take it, for `hvbench allreduce` to time."""

    def fill(self, values: np.ndarray) -> None:
        """Take `values` as what this rank contributes to the next call."""

    def run(self) -> None:
        """Average over the ranks, compression and all."""

    def result(self) -> np.ndarray:
        """What the last call left on this rank."""
