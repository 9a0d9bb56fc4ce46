"""Steps that are taken and taken back before the clock runs, so that a framework has built all its graphs by then."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hvbench.frameworks.contract import Trainer
from hvbench.spec.point import Point
from hvbench.spec.rounds import Exchange, exchange_of
from hvbench.training.batches import Batches


def rehearse(trainer: Trainer, point: Point, batches: Batches, *, steps: Iterable[int], loss_scale: float) -> None:
    """Take a step of each shape that batches may have, and of each kind of exchange, and take it back.

    Else a framework would build the graph within timed steps, whenever one first occurs. What the first step builds itself is left to it.
    Not with a parameter server, whose state this rank does not have.
    """
    shapes = [] if point.is_served else list(batches.rehearsals())
    numbers = list(steps)
    kinds = {exchange_of(point, step) for step in numbers} if point.has_local_updates else {Exchange.GRADIENTS}
    with_allreduce = sorted({kind is Exchange.GRADIENTS for kind in kinds})
    if len(shapes) < 2:
        shapes = [batches.train_batch(numbers[0])] if len(with_allreduce) > 1 else []
    if not shapes and Exchange.PARAMETERS not in kinds:
        return
    before, own = {name: value.copy() for name, value in trainer.state().items()}, trainer.own_state()
    for batch, is_exchanged in itertools.product(shapes, with_allreduce):
        trainer.train_step(*batch, learning_rate=0.0, loss_scale=loss_scale, with_allreduce=is_exchanged)
    if Exchange.PARAMETERS in kinds:
        trainer.average_parameters()
    trainer.load_state(before)
    trainer.load_own_state(own)
