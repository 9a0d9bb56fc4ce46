"""The record: what one launch of one point leaves behind, as raw samples, written once.

Schema history (newest first)
    1   point, repeat, measure, outcome, model, environment, and the samples of every rank

A sample list has one entry per step, the warm-up steps included and in order; `warmup_steps` says how many leading
entries are not measurements. Summaries are computed by `hvbench.analysis` when records are read, never stored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hvbench.spec import MeasureSettings, Point, Spec

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "failed", "timeout", "diverged", "skipped", "interrupted"]
MaybeFinite = float | None  # a non-finite value is stored as null: JSON has no NaN


class Outcome(Spec):
    """How a point ended, and for anything but `ok`: where, why, and where to read more."""

    status: Status
    rank: int | None = None
    phase: str | None = Field(None, description="data, build, first_step, warmup, measure, evaluate, start")
    message: str | None = Field(None, description="the exception's last line, or the reason")
    log: str | None = Field(None, description="path of the worker's log, relative to the run folder where possible")


class ModelFacts(Spec):
    """Sizes that follow from the point, stated so that MFU can be recomputed."""

    parameters: int
    parameters_in_flops: int = Field(description="N of 6N + 12LHQT: all but the learned positions")
    model_flops_per_token: int
    tokens_per_step: int
    allreduce_bytes_per_step: int = Field(description="payload per rank per step as it goes on the wire")


class Evaluation(Spec):
    """One pass over held-out samples by one rank."""

    step: int = Field(description="steps done before it")
    loss: MaybeFinite
    samples: int
    seconds: float
    training_seconds: float = Field(description="clock of training alone since the first step's start")


class RankSamples(Spec):
    """What one rank measured. Lists are per step, warm-up included."""

    rank: int
    host: str
    local_rank: int
    threads: int
    device: str
    step_seconds: list[float]
    data_seconds: list[float]
    loss: list[MaybeFinite]
    gradient_norm: list[MaybeFinite]
    learning_rate: list[float]
    loss_scale: list[float]
    skipped_steps: list[int] = Field(description="steps whose update fp16 overflow dropped")
    evaluations: list[Evaluation]
    data_prepare_seconds: float
    build_seconds: float
    peak_rss_bytes: int
    start_rss_bytes: int = Field(description="RSS before the point: interpreter, framework, allocator leftovers")
    peak_device_memory_bytes: int | None


class Record(Spec):
    """One launch of one point."""

    schema_version: Literal[1] = SCHEMA_VERSION
    suite: str
    point_id: str
    point: Point
    repeat: int
    generation: int | None = Field(None, description="which set of workers ran it")
    measure: MeasureSettings
    outcome: Outcome
    model: ModelFacts
    environment: dict[str, Any]
    ranks: list[RankSamples]
    started_at: str = Field(description="UTC, ISO 8601")
    duration_seconds: float = Field(description="wall time of the point, set-up included")

    @property
    def warmup_steps(self) -> int:
        """Leading entries of each sample list that are not measurements."""
        return self.measure.warmup_steps
