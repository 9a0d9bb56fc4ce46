"""Reads what rank 0 appends about the steps of a launch that trains (`hvbench.records.steps`), as values of curves."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field, ValidationError

from hvbench.errors import UsageError
from hvbench.io.lines import LineReader
from hvbench.io.untrusted import load_json
from hvbench.records.record import MaybeStepValues, Seconds, Steps, StepSeconds
from hvbench.spec.knob import Spec
from hvbench.tracking.runs import Value

MAX_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 26
MAX_DEPTH = 2
CURVES = ("step_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale")  # as the records' runs call them


class Batch(Spec):
    """One line: some steps, one after the other."""

    step: Steps = Field(description="steps that were done before these")
    at: Seconds = Field(description="when the line was written, seconds since 1970")
    step_seconds: StepSeconds
    data_seconds: StepSeconds = []
    loss: MaybeStepValues = []
    gradient_norm: MaybeStepValues = []
    learning_rate: MaybeStepValues = []
    loss_scale: MaybeStepValues = []

    @property
    def end(self) -> int:
        """Steps that are done with these."""
        return self.step + len(self.step_seconds)

    def curves(self) -> dict[str, list[Value]]:
        """Curve -> its finite values; the last step ended when the line was written, as far as it is known here."""
        waits = [*self.data_seconds, *[0.0] * len(self.step_seconds)]
        ended, times = self.at, []
        for seconds, wait in zip(reversed(self.step_seconds), reversed(waits[: len(self.step_seconds)]), strict=True):
            times.append(ended)
            ended -= seconds + wait
        times.reverse()
        curves = {
            name: [
                Value(step=self.step + place + 1, seconds=time, value=float(value))
                for place, (time, value) in enumerate(zip(times, getattr(self, name), strict=False))
                if value is not None and math.isfinite(value)
            ]
            for name in CURVES
        }
        return {name: values for name, values in curves.items() if values}


class StepReader:
    """The batches of a launch that were written since it last read; what is no such line, or is of steps that came before, is left out."""

    def __init__(self, path: Path) -> None:
        self.lines = LineReader(path, max_bytes=MAX_BYTES, max_line_bytes=MAX_LINE_BYTES)
        self.steps = 0  # that have been read

    def read(self) -> list[Batch]:
        """The new ones, in their order."""
        batches = []
        for line in self.lines.read():
            try:
                batch = Batch.model_validate(load_json(line, where=str(self.lines.path), max_depth=MAX_DEPTH))
            except (ValidationError, UsageError):
                continue
            if batch.step >= self.steps and batch.step_seconds:
                self.steps = batch.end
                batches.append(batch)
        return batches
