"""For the Trainer of Lightning (`lightning`, or `pytorch_lightning` before it): one callback.

    from hvbench.probe.lightning import ProbeCallback

    Trainer(…, callbacks=[ProbeCallback(tokens_per_step=4096)]).fit(model, data)

A step is an update, from `on_train_batch_start` of its first batch to `on_train_batch_end` of its last. Validation is in no
step; `monitor` names the logged value that is its loss (log it with `sync_dist=True`, so that it is the mean over the ranks).
Checkpoints that Lightning writes after a batch count as a wait: turn them off where they are not what is measured.
"""

from __future__ import annotations

from typing import Any

from hvbench import probe

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        Callback = object  # no Trainer would call it, but documentation imports all modules


class ProbeCallback(Callback):
    """Measures `fit` until as many updates as the suite asks for have been done."""

    def __init__(self, tokens_per_step: int | None = None, *, monitor: str = "val_loss") -> None:
        """Args: `tokens_per_step`: of this process alone, over all accumulated batches; see `hvbench.probe.training`."""
        self._tokens_per_step = tokens_per_step
        self._monitor = monitor
        self._training = probe.Training()
        self._is_in_step = False
        self._updates = 0  # before the present step
        self._loss: Any = None  # of its batches so far, which Lightning has divided by their number

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._training.is_launched:
            self._training = probe.training(self._tokens_per_step)
            self._training.begin(until_exit=True)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._is_in_step:
            self._training.begin_step()
            self._is_in_step, self._updates, self._loss = True, trainer.global_step, None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._loss = loss if self._loss is None else self._loss + loss
        if trainer.global_step == self._updates:  # the batch was accumulated
            return
        self._training.end_step()
        self._is_in_step = False
        self._training.log(loss=self._loss)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._training.begin_pause()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        loss = trainer.callback_metrics.get(self._monitor)
        if loss is not None and not trainer.sanity_checking:
            self._training.evaluate(loss=loss)
        self._training.end_pause()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._training.is_done:
            self._training.leave()
