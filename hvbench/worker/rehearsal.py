"""Steps that are taken and taken back before the clock runs, so that a framework has built all its graphs by then."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from hvbench.frameworks.contract import Trainer
from hvbench.spec.point import Point
from hvbench.spec.rounds import Exchange, exchange_of
from hvbench.training.batches import Batches
from hvbench.training.checkpoints import OPTIMIZER
from hvbench.worker.memory import reset_peak_rss

UPDATES = f"{OPTIMIZER}updates"  # in a trainer's state


def rehearse(trainer: Trainer, point: Point, batches: Batches, *, steps: Iterable[int], loss_scale: float) -> None:
    """Take a step of each shape that batches may have, and of each kind of exchange, and take it back.

    Else a framework would build the graph within timed steps, whenever one first occurs. What the first step builds itself is left to it.
    Not with a parameter server, whose state this rank does not have.
    """
    shapes = [] if point.is_served else list(batches.rehearsals())
    numbers = list(steps)
    kinds = {exchange_of(point, step) for step in numbers} if point.has_local_updates else {Exchange.GRADIENTS}
    with_allreduce = sorted({kind is Exchange.GRADIENTS for kind in kinds})
    counts = _count_updates(point, numbers)
    if len(shapes) < 2:
        shapes = [batches.train_batch(numbers[0])] if len(with_allreduce) > 1 or len(counts) > 1 else []
    if not shapes and Exchange.PARAMETERS not in kinds:
        return
    before, own = {name: value.copy() for name, value in trainer.state().items()}, trainer.own_state()
    for count, batch, is_exchanged in itertools.product(counts, shapes, with_allreduce):
        if count != counts[0]:
            trainer.load_state(before | {UPDATES: np.array(count, np.int64)})
        trainer.train_step(*batch, learning_rate=0.0, loss_scale=loss_scale, with_allreduce=is_exchanged)
    if Exchange.PARAMETERS in kinds:
        trainer.average_parameters()
    trainer.load_state(before)
    trainer.load_own_state(own)
    del before, own
    reset_peak_rss()  # copies of the state, several times its size, are no part of training


def _count_updates(point: Point, steps: Sequence[int]) -> list[int]:
    """How many updates are made before a step of each phase of 1-bit Adam that `steps` have; before the first of them, where there are no phases."""
    begin = point.onebit_warmup_steps
    return [steps[0], begin] if point.sends_momenta and steps[0] < begin <= steps[-1] else [steps[0]]
