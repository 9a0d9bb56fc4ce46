"""For the Trainer of Hugging Face: one callback.

    from hvbench.probe.huggingface import ProbeCallback

    Trainer(…, callbacks=[ProbeCallback(tokens_per_step=4096)]).train()

A step is an update, from `on_step_begin` to `on_step_end`, with all its accumulated batches; what the Trainer fetches before
it is the wait for data. Evaluations and checkpoints are in no step.

The losses are those that the Trainer logs: the mean over all ranks and over the `logging_steps` since it last logged, so
`logging_steps=1` gives that of every step. It hides losses that are not finite unless `logging_nan_inf_filter=False`.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from hvbench import probe


class ProbeCallback(TrainerCallback):
    """Measures `train()` until as many updates as the suite asks for have been done."""

    def __init__(self, tokens_per_step: int | None = None) -> None:
        """Args: `tokens_per_step`: of this process alone, over all accumulated batches; see `hvbench.probe.training`."""
        self._tokens_per_step = tokens_per_step
        self._training = probe.Training()
        self._awaited: set[str] = set()  # what the present pause is for: an evaluation, a checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._training.is_launched:
            self._training = probe.training(self._tokens_per_step)
            self._training.begin(until_exit=True)
        self._resume(*self._awaited)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._resume(*self._awaited)
        self._training.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._training.end_step()
        self._pause_for(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pause_for(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" in logs:
            self._training.log(loss=logs["loss"], gradient_norm=logs.get("grad_norm"))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **about: Any
    ) -> None:
        metrics = metrics or {}
        if "eval_loss" in metrics:
            samples = _count(about.get("eval_dataloader"))
            accuracy = metrics.get("eval_accuracy")
            self._training.evaluate(loss=metrics["eval_loss"], samples=samples, accuracy=accuracy)
        self._resume("evaluation")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._resume("checkpoint")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._training.is_done:
            self._training.leave()
        self._pause({"another train()"})

    def _pause_for(self, control: Any) -> None:
        """Begin a pause where the Trainer is about to evaluate or to save."""
        wanted = {"evaluation": control.should_evaluate, "checkpoint": control.should_save}
        self._pause({what for what, is_next in wanted.items() if is_next})

    def _pause(self, awaited: set[str]) -> None:
        if awaited and not self._awaited:
            self._training.begin_pause()
        self._awaited |= awaited

    def _resume(self, *done: str) -> None:
        """End the pause once all is done that it was for."""
        if self._awaited:
            self._awaited -= set(done)
            if not self._awaited:
                self._training.end_pause()


def _count(dataloader: Any) -> int:
    """Samples of an evaluation over all ranks; 1 where they are not known before they come."""
    try:
        return len(dataloader.dataset) or 1
    except (AttributeError, TypeError):
        return 1
