"""One update of a training with the exchange that it ends in: by the framework's trainer, when the point's rounds say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hvbench.frameworks.contract import Arrays, StepResult, Trainer
from hvbench.spec.point import Point
from hvbench.spec.rounds import Exchange, exchange_of, is_common
from hvbench.training.layout import Batch


def train_update(
    trainer: Trainer,
    point: Point,
    step: int,
    batch: Batch,
    *,
    learning_rate: float,
    loss_scale: float,
    times_exchange: bool = False,
) -> StepResult:
    """Make 0-based update `step` of a training; at the end of a round of local updates the ranks average their parameters.

    `times_exchange`: on a CPU, where that takes as long as its call, its time is the wait for the exchange.
    """
    exchange = exchange_of(point, step)
    with_allreduce = exchange is Exchange.GRADIENTS
    result = trainer.train_step(
        *batch, learning_rate=learning_rate, loss_scale=loss_scale, with_allreduce=with_allreduce
    )
    begun = time.perf_counter()
    if exchange is Exchange.PARAMETERS:
        trainer.average_parameters()
    if with_allreduce or not times_exchange:
        return result
    waited = time.perf_counter() - begun if exchange is Exchange.PARAMETERS else 0.0
    return replace(result, exchange_wait_seconds=waited)


def common_parameters(trainer: Trainer, point: Point, steps: int) -> Arrays:
    """Canonical name -> value that all ranks agree on after so many updates: within a round the mean over the ranks. All of them call it."""
    own = trainer.parameters()
    return own if is_common(point, steps) else own | trainer.mean_parameters()


@contextmanager
def on_common_parameters(trainer: Trainer, point: Point, steps: int) -> Iterator[None]:
    """In here the trainer has the parameters of `common_parameters`, and behind it its own again. All ranks call it."""
    if is_common(point, steps):
        yield
        return
    mean = trainer.mean_parameters()
    own = {name: value for name, value in trainer.parameters().items() if name in mean}
    trainer.load_parameters(mean)
    del mean  # an evaluation is to need no more memory than training
    yield
    trainer.load_parameters(own)
