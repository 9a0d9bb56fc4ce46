"""The evaluations that a script reports, and whether they end its training: at a target loss, or for lack of patience."""

from __future__ import annotations

from typing import Any

from hvbench.probe.request import Request
from hvbench.probe.samples import finite_or_none, to_count, to_number
from hvbench.training.stopping import EarlyStopping


class Evaluations:
    """Evaluations of one rank, each as `hvbench.records.record.Evaluation` has it."""

    def __init__(self, request: Request) -> None:
        self.done: list[dict[str, Any]] = []
        self.stopped_by: str | None = None  # `target` or `patience`: what ends the training early
        self._request = request
        self._stopping = EarlyStopping(target_loss=request.target_loss, patience=request.patience)

    def add(self, *, step: int, seconds: float, training_seconds: float, values: dict[str, Any]) -> None:
        """Keep an evaluation after `step` steps, and judge its loss, which every rank gives alike. Raises ProbeError.

        Args:
            seconds: of the evaluation.
            training_seconds: clock of training alone when it began.
            values: `loss`, `samples` and `accuracy` (None: not known) as the script gave them.
        """
        loss = to_number("training.evaluate(loss", values["loss"])
        accuracy = values["accuracy"]
        if accuracy is not None:
            accuracy = finite_or_none(to_number("training.evaluate(accuracy", accuracy))
        self.done.append(
            {
                "step": step,
                "loss": finite_or_none(loss),
                "samples": to_count("training.evaluate(samples", values["samples"]),
                "seconds": seconds,
                "training_seconds": training_seconds,
                "accuracy": accuracy,
            }
        )
        reason = self._stopping.judge(loss)
        # As for twins: at least one step has been timed, and one is left; the last evaluation ends nothing early.
        if self._request.warmup_steps < step < self._request.total_steps:
            self.stopped_by = reason
