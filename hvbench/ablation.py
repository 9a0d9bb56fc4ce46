"""Where the time of a step goes: whole steps and steps with parts left out, timed in turn on the same batch.

This runs after the measured steps, in the same worker and with the same trainer, with a learning rate of 0, so that every
run sees the same weights. The kinds take turns within each round, and each round starts with another kind: a machine
that drifts moves all of them alike. Only samples are taken here; `hvbench.analysis.breakdown` makes parts of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from hvbench.frameworks.contract import Runtime, Trainer
from hvbench.record import Ablation
from hvbench.training.loss_scale import LossScale


class Ablations:
    """One point's ablations: `warm_up`, then a `round` at a time. Every rank has to call both as often as the others."""

    def __init__(
        self, trainer: Trainer, batch: tuple[np.ndarray, np.ndarray], *, loss_scale: LossScale, runtime: Runtime
    ) -> None:
        self.trainer = trainer
        self.batch = batch
        self.loss_scale = loss_scale
        self.runtime = runtime
        self.kinds: dict[str, Callable[[], object]] = {
            "forward_seconds": lambda: trainer.forward(*batch),
            "backward_seconds": lambda: trainer.backward(*batch, loss_scale=loss_scale.scale),
            "local_step_seconds": lambda: self._step(with_allreduce=False),
            "step_seconds": lambda: self._step(with_allreduce=True),
            "allreduce_seconds": trainer.allreduce_alone,
            # What the measuring costs: a clock around nothing, and the barrier that stands before every clock.
            "clock_seconds": lambda: None,
            "barrier_seconds": runtime.barrier,
        }
        if runtime.world_size == 1:
            del self.kinds["allreduce_seconds"]
        self.samples: dict[str, list[float]] = {name: [] for name in Ablation.model_fields}

    def warm_up(self) -> None:
        """Run each kind untimed, since TensorFlow traces a graph for each; lower the loss scale until nothing overflows."""
        # The averaged gradients decide, which are the same on all ranks; where they are finite, each rank's own are.
        while self._step(with_allreduce=True).skipped and self.loss_scale.scale > 1.0:
            self.loss_scale.update(skipped=True)
        for run in self.kinds.values():
            run()

    def round(self, number: int) -> None:
        """Time every kind once."""
        for name in rotate(list(self.kinds), number):
            self.runtime.barrier()  # ranks start together, as after the all-reduce of a step before
            self.runtime.synchronize()
            begun = time.perf_counter()
            self.kinds[name]()
            self.runtime.synchronize()
            self.samples[name].append(time.perf_counter() - begun)

    def _step(self, *, with_allreduce: bool):
        scale = self.loss_scale.scale
        return self.trainer.train_step(*self.batch, learning_rate=0.0, loss_scale=scale, with_allreduce=with_allreduce)


def rotate(names: list[str], number: int) -> Iterator[str]:
    """`names` in their order, begun at the place that round `number` begins with."""
    return (names[(number + index) % len(names)] for index in range(len(names)))
