"""The record: what one launch of one point leaves behind, as raw samples, written once.

Schema history (newest first)
    1   point, repeat, measure, outcome, model, environment, and the samples of every rank

A sample list has one entry per step, the warm-up steps included and in order; `warmup_steps` says how many leading
entries are not measurements. Summaries are computed by `hvbench.analysis` when records are read, never stored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hvbench.spec import MeasureSettings, Point, Spec

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "failed", "timeout", "diverged", "skipped", "interrupted"]
MaybeFinite = float | None  # a non-finite value is stored as null: JSON has no NaN
Whole = Annotated[int, Field(ge=0, lt=2**63)]  # what every reader of a table can hold
Line = Annotated[str, Field(max_length=4096)]  # records may come from anybody


class Outcome(Spec):
    """How a point ended, and for anything but `ok`: where, why, and where to read more."""

    status: Status
    rank: Whole | None = None
    phase: Line | None = Field(None, description="data, build, first_step, warmup, measure, evaluate, start")
    message: Line | None = Field(None, description="the exception's last line, or the reason")
    log: Line | None = Field(None, description="path of the worker's log, relative to the run folder where possible")


class ModelFacts(Spec):
    """Sizes that follow from the point, stated so that MFU can be recomputed."""

    parameters: Whole
    parameters_in_flops: Whole = Field(description="N of 6N + 12LHQT: all but the learned positions")
    model_flops_per_token: Whole
    tokens_per_step: Whole
    allreduce_bytes_per_step: Whole = Field(description="payload per rank per step as it goes on the wire")


class Evaluation(Spec):
    """One pass over held-out samples by one rank."""

    step: Whole = Field(description="steps done before it")
    loss: MaybeFinite
    samples: Whole
    seconds: float
    training_seconds: float = Field(description="clock of training alone since the first step's start")


class RankSamples(Spec):
    """What one rank measured. Lists are per step, warm-up included."""

    rank: Whole
    host: Line
    local_rank: Whole
    threads: Whole
    device: Line
    step_seconds: list[float]
    data_seconds: list[float]
    loss: list[MaybeFinite]
    gradient_norm: list[MaybeFinite]
    learning_rate: list[float]
    loss_scale: list[float]
    skipped_steps: list[Whole] = Field(description="steps whose update fp16 overflow dropped")
    evaluations: list[Evaluation]
    data_prepare_seconds: float
    build_seconds: float
    peak_rss_bytes: Whole
    start_rss_bytes: Whole = Field(description="RSS before the point: interpreter, framework, allocator leftovers")
    peak_device_memory_bytes: Whole | None


class Record(Spec):
    """One launch of one point."""

    schema_version: Literal[1] = SCHEMA_VERSION
    suite: Line
    point_id: Line
    point: Point
    repeat: Whole
    generation: Whole | None = Field(None, description="which set of workers ran it")
    measure: MeasureSettings
    outcome: Outcome
    model: ModelFacts
    environment: dict[str, Any]
    ranks: list[RankSamples]
    started_at: Line = Field(description="UTC, ISO 8601")
    duration_seconds: float = Field(description="wall time of the point, set-up included")

    @property
    def warmup_steps(self) -> int:
        """Leading entries of each sample list that are not measurements."""
        return self.measure.warmup_steps
