"""Where the time of a step goes: whole steps and steps with parts left out, timed alternately between the timed steps.

Rounds of them are spread evenly over the timed steps, in the same worker and with the same trainer, so that a drift of
the machine affects both equally. A round runs on the batch of the step before it, with a learning rate of 0, and times
every kind once; each round starts with another kind. Then the trainer's state is restored: losses are those of a run
without ablations, bit for bit. Only samples are taken here; `hvbench.analysis.frame.breakdown` computes the parts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from hvbench.frameworks.contract import StepResult
from hvbench.records.record import Ablation
from hvbench.training.layout import Batch
from hvbench.training.loss_scale import LossScale
from hvbench.worker.loop import Loop
from hvbench.worker.memory import read_peaks


class Ablations:
    """The ablations of a loop's point. Call `interrupt` after each step, on every rank: all of them take part."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.runtime = loop.runtime
        self.samples: dict[str, list[float]] = {name: [] for name in Ablation.model_fields}
        self.peaks: dict[str, int | None] | None = (
            None  # before the first round: memory that ablations need is no part of training
        )

    def interrupt(self, *, enter: Callable[[str], object]) -> None:
        """Do the rounds that are due, if any, in a pause of the training; `enter` is called with the phase."""
        numbers = self.due()
        if not numbers:
            return
        loop = self.loop
        loop.meet()
        enter("ablation")
        with loop.paused():
            self.peaks = self.peaks or read_peaks(self.runtime)
            state, own = loop.trainer.state(), loop.trainer.own_state()
            batch = loop.batches.train_batch(loop.first_step + loop.step - 1)
            loop.trainer.rewind(len(batch[0]))  # dropout masks are those of that step, too, in every kind
            for number in numbers:
                self.round(number, batch)
            loop.trainer.load_state(state)
            loop.trainer.load_own_state(own)
            self.runtime.barrier()  # ranks continue together, as after the all-reduce of a step

    def due(self) -> range:
        """Numbers of the rounds that are due after the timed steps so far: the n-th after n / rounds of them."""
        settings = self.loop.settings
        return range(
            len(self.samples["step_seconds"]), self.loop.timed_steps * settings.ablation_rounds // settings.steps
        )

    def round(self, number: int, batch: Batch) -> None:
        """Time every kind once; in the first round run each kind untimed before, since TensorFlow traces a graph for it."""
        kinds = self._make_kinds(batch, self._warm_up(batch))
        for run in kinds.values() if number == 0 else ():
            run()
        for name in rotate(list(kinds), number):
            self.runtime.barrier()  # ranks start together, as after the all-reduce of a step before
            self.runtime.synchronize()
            begun = time.perf_counter()
            kinds[name]()
            self.runtime.synchronize()
            self.samples[name].append(time.perf_counter() - begun)

    def _warm_up(self, batch: Batch) -> LossScale:
        """An untimed step, again with a lower loss scale until nothing overflows: a skipped update would look free.

        The averaged gradients decide, which are the same on all ranks; where they are finite, each rank's own are.
        """
        loss_scale = dataclasses.replace(self.loop.loss_scale)
        while self._step(batch, loss_scale, with_allreduce=True).skipped and loss_scale.scale > 1.0:
            loss_scale.update(skipped=True)
        return loss_scale

    def _make_kinds(self, batch: Batch, loss_scale: LossScale) -> dict[str, Callable[[], object]]:
        trainer = self.loop.trainer
        kinds: dict[str, Callable[[], object]] = {
            "forward_seconds": lambda: trainer.forward(*batch),
            "backward_seconds": lambda: trainer.backward(*batch, loss_scale=loss_scale.scale),
            "local_step_seconds": lambda: self._step(batch, loss_scale, with_allreduce=False),
            "step_seconds": lambda: self._step(batch, loss_scale, with_allreduce=True),
            "allreduce_seconds": trainer.average_parameters if self._has_rounds else trainer.allreduce_alone,
            # What the measurement itself costs: a clock around nothing, and the barrier before every clock.
            "clock_seconds": lambda: None,
            "barrier_seconds": self.runtime.barrier,
        }
        if self.runtime.world_size == 1:
            del kinds["allreduce_seconds"]
        return kinds

    def _step(self, batch: Batch, loss_scale: LossScale, *, with_allreduce: bool) -> StepResult:
        """A step that ends in an exchange, or, without `with_allreduce`, the same step without it."""
        trainer, scale, of_gradients = self.loop.trainer, loss_scale.scale, with_allreduce and not self._has_rounds
        result = trainer.train_step(*batch, learning_rate=0.0, loss_scale=scale, with_allreduce=of_gradients)
        if with_allreduce and self._has_rounds:
            trainer.average_parameters()
        trainer.rewind(len(batch[0]))
        return result

    @property
    def _has_rounds(self) -> bool:
        return self.loop.point.has_local_updates


def rotate(names: list[str], number: int) -> Iterator[str]:
    """`names` in their order, rotated so that round `number` begins with the next name."""
    return (names[(number + index) % len(names)] for index in range(len(names)))
