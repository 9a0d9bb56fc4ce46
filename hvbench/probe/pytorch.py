"""For a plain PyTorch loop: `probe.pytorch.wrap(optimizer)` after everything is built, and no line of the loop changes.

    import hvbench.probe.pytorch

    optimizer = hvd.DistributedOptimizer(optimizer, …)          # if you have one
    hvbench.probe.pytorch.wrap(optimizer, tokens_per_step=4096)  # just before the loop

A step runs from the end of one `optimizer.step()` to the end of the next, so the waits for data are within it and are no
sample of their own, and so is whatever else the loop does: put evaluations and checkpoints into
`with probe.current().paused():`. What `probe.current().log(loss=loss)` notes belongs to the `optimizer.step()` that follows.
"""

from __future__ import annotations

import sys
from functools import wraps
from types import FrameType, MethodType
from typing import Any

from hvbench import probe
from hvbench.errors import ProbeError

SCALER = "grad_scaler.py"  # the file of PyTorch's GradScaler
FRAMES = 5  # between it and the optimizer's step, at most: a learning rate's scheduler and Horovod stand between


def wrap(optimizer: Any, *, tokens_per_step: int | None = None, scaler: Any = None) -> Any:
    """Time the steps of an optimizer, which stays the object that it is; nothing happens outside a launch of hvbench.

    Args:
        optimizer: of torch.optim, Horovod, Accelerate or anyone: what has a `step()` that is called once per update.
        tokens_per_step: see `hvbench.probe.training`.
        scaler: the GradScaler that calls `optimizer.step()`, if one does: a step that it skips is a step.

    Returns:
        The same optimizer.

    Raises:
        ProbeError: this process has a training already; later, from a step: a GradScaler calls it that was not given.
    """
    training = probe.training(tokens_per_step)
    if not training.is_launched:
        return optimizer
    training.begin(until_exit=True)
    if scaler is None:
        _replace_step(optimizer, training, of=lambda *_: True)
    else:
        _replace_step(scaler, training, of=lambda stepped, *_: stepped is optimizer)
    training.begin_step()
    return optimizer


def _replace_step(owner: Any, training: probe.Training, *, of: Any) -> None:
    """Let `owner.step` end a step of the training where `of` its arguments is true.

    It stays a method of this one instance: what a scheduler wraps around it, and what is pickled, know no difference.
    """
    step = owner.step
    is_optimizer = not hasattr(owner, "unscale_")

    @wraps(getattr(step, "__func__", step))
    def timed(_: Any, *arguments: Any, **named: Any) -> Any:
        if not of(*arguments):
            return step(*arguments, **named)
        if training.is_done:
            training.leave()
        if is_optimizer and not training.steps:
            _require_no_scaler(sys._getframe(1))
        result = step(*arguments, **named)
        training.end_step()
        training.begin_step(at_once=True)
        return result

    owner.step = MethodType(timed, owner)


def _require_no_scaler(frame: FrameType | None) -> None:
    """Raise ProbeError where a GradScaler stands among the callers: it does not call where it skips a step."""
    for _ in range(FRAMES):
        if frame is None:
            return
        if frame.f_code.co_filename.endswith(SCALER):
            raise ProbeError(
                "a GradScaler calls optimizer.step(), and not for steps that it skips: wrap(…, scaler=scaler)"
            )
        frame = frame.f_back
