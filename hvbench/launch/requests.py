"""What a worker is asked to do: one request per job, written by rank 0 and validated by the worker that reads it.

All kinds of job but the all-reduce cases, whose request is `hvbench.communication.record.AllreduceRequest`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from hvbench.spec.knob import Spec
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings


class LaunchRequest(Spec):
    """What is asked of a launch, whatever it trains."""

    measure: MeasureSettings
    key: str = Field("", description="names the launch, and its folder of checkpoints")
    repeat: int = Field(0, ge=0, description="which launch of the point it is")
    place: int | None = Field(None, description="number of the launch among those that are run in turns")
    steps_file: str | None = Field(
        None, description="where rank 0 appends the samples of its steps while it trains; None: nowhere"
    )


class ScriptRequest(LaunchRequest):
    """Time the steps of people's own training; `hvbench.probe` reads it in the process that trains."""

    kind: Literal["script"] = "script"
    point: ScriptPoint
    profile: str | None = Field(
        None, description="folder for what the framework's profiler records after the timed steps; None: nothing"
    )


class JobKind(StrEnum):
    """What a worker does with one job; the value is the request's `kind`."""

    MEASURE = "measure"
    PRETRAIN = "pretrain"
    TRACE = "trace"
    ALLREDUCE = "allreduce"


class MeasureRequest(LaunchRequest):
    """Train a point and time its steps."""

    kind: Literal["measure"] = "measure"
    point: Point
    checkpoints: str = Field("checkpoints", description="the run's folder of checkpoints")
    may_end_early: bool = Field(
        False,
        description="train no further once rank 0 finds `hvbench.launch.messages.end_file` at an evaluation, where all ranks meet",
    )
    data_digest: str | None = Field(None, description="of the text that the run was begun with; None: not known")
    pretraining_digest: str | None = Field(None, description="of the checkpoint that a pretrained point starts from")
    weights_digest: str | None = Field(
        None, description="of the tensors in the point's initial_weights; None: not known"
    )


class PretrainRequest(Spec):
    """Train a language model and leave a checkpoint of it, from which points of every framework start."""

    kind: Literal["pretrain"] = "pretrain"
    point: Point = Field(description="of the language model")
    steps: int = Field(ge=2)
    data_digest: str | None = Field(None, description="of the text that the run was begun with; None: not known")
    path: str = Field(description="of the checkpoint")


class TraceRequest(Spec):
    """Train a point for a few steps and write down every tensor, for the parity check."""

    kind: Literal["trace"] = "trace"
    point: Point
    measure: MeasureSettings
    folder: str = Field(description="where ranks that see it write their tensors")
    draw: int | None = Field(None, description="seed by which the initial weights are moved in their last bit")
