"""For Keras' `fit`: the last callback of its list.

    from hvbench.probe.keras import ProbeCallback

    model.fit(dataset, callbacks=[…, ProbeCallback(tokens_per_step=4096)])

A step is a batch, from `on_train_batch_begin` to `on_train_batch_end`. With TensorFlow `fit` fetches a batch within its step,
so there the waits for data are part of steps. What lies between two epochs, validation and checkpoints, is in no step;
`val_loss` is the loss of the evaluation, averaged over the ranks if a callback before this one averages it in place, as
Horovod's MetricAverageCallback does (not with Keras 3, which Horovod 0.28's callbacks do not know). Its DistributedOptimizer
averages no gradients with Keras 3, and says nothing: on several ranks that is refused after the first batch.

Loss: Keras shows the mean of an epoch so far; this callback takes that of each batch from the sums behind it, which are
float32. Keras' JAX backend keeps these to itself until an epoch ends, so no loss is known there.
"""

from __future__ import annotations

import os
from typing import Any

import keras

from hvbench import probe
from hvbench.errors import ProbeError

Logs = dict[str, Any] | None


class ProbeCallback(keras.callbacks.Callback):
    """Measures `fit`, or several of them, until as many batches as the suite asks for have been trained."""

    def __init__(self, tokens_per_step: int | None = None) -> None:
        """Args: `tokens_per_step`: of this process alone; see `hvbench.probe.training`."""
        super().__init__()
        self._tokens_per_step = tokens_per_step
        self._training = probe.Training()
        self._is_in_step = False
        self._is_paused = False
        self._samples = 1  # of the last validation
        self._sums = (0.0, 0.0)  # loss times samples, samples: of this epoch so far

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self._training.is_launched:
            self._training = probe.training(self._tokens_per_step)
            self._training.begin(until_exit=True)
        together = int(getattr(self.model, "steps_per_execution", None) or 1)
        if self._training.is_launched and together > 1:
            raise ProbeError(f"compile(steps_per_execution={together}): single steps are timed; leave it at 1")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._resume()
        self._sums = (0.0, 0.0)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._resume()
        self._training.begin_step()
        self._is_in_step = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._training.end_step()
        self._is_in_step = False
        if self._training.is_launched:
            if batch == 0:  # no later one can say more
                require_averaged(self.model.optimizer, ranks=int(os.environ.get("WORLD_SIZE", "1")))
            self._training.log(loss=self._read_loss())
        if (self.params or {}).get("steps") == batch + 1:
            self._pause()

    def on_test_begin(self, logs: Logs = None) -> None:
        self._pause()

    def on_test_end(self, logs: Logs = None) -> None:
        self._samples = int(self._read_sums()[1]) or 1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._pause()
        logs = logs or {}
        if "val_loss" in logs:
            accuracy = logs.get("val_accuracy")
            self._training.evaluate(loss=logs["val_loss"], samples=self._samples, accuracy=accuracy)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._training.is_done:
            self._training.leave()
        self._pause()  # until the next `fit`, if there is one

    def _pause(self) -> None:
        """Begin a pause, if there is none; a batch that was announced and did not come is no step."""
        if self._is_in_step:
            self._training.abandon_step()
            self._is_in_step = False
        if not self._is_paused:
            self._training.begin_pause()
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._training.end_pause()
            self._is_paused = False

    def _read_loss(self) -> float | None:
        """Mean loss of the last batch; None where Keras does not tell."""
        (loss, samples), (former_loss, former_samples) = self._read_sums(), self._sums
        self._sums = (loss, samples)
        return (loss - former_loss) / (samples - former_samples) if samples > former_samples else None

    def _read_sums(self) -> tuple[float, float]:
        """Loss times samples, and samples, since Keras last began to count."""
        for metric in self.model.metrics if self._training.is_launched else ():
            if metric.name == "loss" and hasattr(metric, "total") and hasattr(metric, "count"):
                return float(metric.total), float(metric.count)
        return 0.0, 0.0


def require_averaged(optimizer: Any, *, ranks: int) -> None:
    """Raise ProbeError where Horovod's optimizer has updated the weights without the other ranks' gradients.

    It averages in methods that Keras 3 does not call, and notes whether it has.
    """
    if ranks > 1 and getattr(optimizer, "_aggregated_gradients", None) is False:
        raise ProbeError(
            "hvd.DistributedOptimizer has averaged no gradients, which it does with Keras 2 alone: every rank trains a model of its "
            "own; average them in the optimizer's apply(), as docs/own-training.md shows"
        )
