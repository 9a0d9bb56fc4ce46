"""What one rank writes down about the steps of one point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hvbench.frameworks.contract import StepResult
from hvbench.records.record import finite_or_none


@dataclass(kw_only=True)
class SampleLists:
    """Per-step lists of one rank, warm-up included; `hvbench.records.record.RankSamples` says what each one holds."""

    step_seconds: list[float] = field(default_factory=list)
    data_seconds: list[float] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    gradient_norm: list[float | None] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    loss_scale: list[float] = field(default_factory=list)
    skipped_steps: list[int] = field(default_factory=list)
    averaging_steps: list[int] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    exchange_wait_seconds: list[float] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    test: dict[str, Any] | None = None
    overflows: list[dict[str, Any]] = field(default_factory=list)
    gradient_noise: list[dict[str, Any]] = field(default_factory=list)
    stopped_by: str | None = None

    def add(self, result: StepResult, *, learning_rate: float, loss_scale: float) -> None:
        """Append one step's values; its times are appended where they are taken."""
        if result.skipped:
            self.skipped_steps.append(len(self.loss))
        if result.staleness is not None:
            self.staleness.append(result.staleness)
        self.loss.append(finite_or_none(result.loss))
        self.gradient_norm.append(finite_or_none(result.gradient_norm))
        self.learning_rate.append(learning_rate)
        self.loss_scale.append(loss_scale)
        if result.exchange_wait_seconds is not None:
            self.exchange_wait_seconds.append(result.exchange_wait_seconds)
