"""The probe: it measures your own training where hvbench launches it, and does nothing anywhere else.

    from hvbench import probe

    with probe.training(tokens_per_step=4096) as training:  # around the loop; one training a process
        for batch in loader:
            with training.step():                           # one optimizer update, timed
                loss = update(batch)
            training.log(loss=loss)                         # a number, or a tensor that holds one
            if it_is_time:
                with training.paused():                     # evaluations, checkpoints: in no step
                    training.evaluate(loss=validate(), samples=512)

Under `hvbench sweep SUITE`, whose [script] names your command, the loop ends by itself when as many steps as the suite asks
for have been trained: `Measured`, a SystemExit, leaves it. Started in any other way, the same script runs as if these
lines were not there. The device is synchronised at both ends of a step, so a step's time is that of its work; what lies
between two steps is the wait for data. Every rank logs its own losses; the loss of an evaluation is the mean over all
ranks, the same on each, for it decides when to stop (`stop_at_target`, `patience`).

No loop of your own? `hvbench.probe.keras`, `hvbench.probe.huggingface` and `hvbench.probe.lightning` have callbacks, and
`hvbench.probe.pytorch.wrap(optimizer)` times a loop in which no line changes.
"""

from __future__ import annotations

import os

from hvbench.errors import ProbeError
from hvbench.probe.idle import Measured, Training

__all__ = ["Measured", "ProbeError", "Training", "current", "training"]

VARIABLE = "HVBENCH_PROBE"  # names the folder of this rank, where hvbench launched it

_current: Training = Training()


def training(tokens_per_step: int | None = None) -> Training:
    """The training of this process, to be entered by `with` around its loop; it does nothing outside a launch of hvbench.

    Args:
        tokens_per_step: tokens (or samples, or whatever you count) that this process alone trains on in a step; hvbench adds
            up those of all ranks. `training.log(tokens=…)` changes it. None: no rate is known, only times.

    Raises:
        ProbeError: this process has a training already, or hvbench's own files cannot be read.
    """
    global _current
    folder = os.environ.get(VARIABLE)
    if not folder:
        return Training()
    if _current.is_launched:
        raise ProbeError("a second probe.training() in this process: one training is measured, all of it in one `with`")

    from hvbench.probe.launched import LaunchedTraining

    _current = LaunchedTraining(folder, variable=VARIABLE, tokens_per_step=tokens_per_step)
    return _current


def current() -> Training:
    """The training that this process measures, where another part of the program began it; else one that does nothing."""
    return _current
