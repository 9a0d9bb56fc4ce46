"""A look at what the wire's number format lost of the gradients, behind a launch's last step: nothing of it is timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvbench.launch.task import FailureStatus
from hvbench.records.record import finite_or_none
from hvbench.spec.point import Point
from hvbench.training.layout import Batch
from hvbench.training.wire import count_losses, is_watched
from hvbench.worker.failure import describe_failure
from hvbench.worker.loop import Loop
from hvbench.worker.worker import Worker

PHASE = "wire"


def look_at_wire(worker: Worker, loop: Loop) -> list[dict[str, Any]]:
    """Fields of `hvbench.records.record.WireLook`, one look; none where nothing is compressed or memory ran out.

    All ranks call it. It takes the batch of the last step, with its dropout masks, and the parameters after it; after a
    divergence they are those before the step, for an update that is not finite was not made.
    """
    samples, runtime = loop.samples, loop.runtime
    if not is_watched(loop.point) or not samples.loss:
        return []
    worker.progress.enter(PHASE)
    batch = loop.batches.train_batch(loop.first_step + len(samples.loss) - 1)
    scale = loop.loss_scale.scale
    loop.trainer.rewind(len(batch[0]))
    if 0.0 in runtime.gather(float(fits(loop, batch, scale=scale))):
        return []
    own, averages = loop.trainer.allreduce_kept()
    is_finite = all(np.isfinite(value).all() for value in own.values())
    losses = count_losses(own, averages, point=loop.point, all_finite=0.0 not in runtime.gather(float(is_finite)))
    norms = {"norm": finite_or_none(losses.norm), "underflow_norm": finite_or_none(losses.underflow_norm)}
    return [{**vars(losses), **norms, "step": loop.step, "loss_scale": scale}]


def fits(loop: Loop, batch: Batch, *, scale: float) -> bool:
    """Compute the gradients; False where memory runs out, which costs a launch that has been measured nothing."""
    try:
        loop.trainer.backward(*batch, loss_scale=scale)
    except Exception as error:  # each framework has its own for that
        if describe_failure(error)["status"] != FailureStatus.OOM.value:
            raise
        return False
    return True


def describe_losses(looks: Sequence[dict[str, Any]], point: Point) -> str:
    """What the last look adds to the message of a divergence: `; fp16 on the wire: …`, or nothing."""
    if not looks or not looks[-1]["values"]:
        return ""
    values, underflows, overflows = (looks[-1][name] for name in ("values", "underflows", "overflows"))
    return (
        f"; {point.compression} on the wire: {100 * underflows / values:.2g} % of this step's gradients underflow, "
        f"{100 * overflows / values:.2g} % overflow"
    )
