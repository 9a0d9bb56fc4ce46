"""The record of one launch of one point: its configuration, its environment and the raw samples of every rank.

A record is written once. A list of samples has one entry per step, in order, warm-up steps included; `warmup_steps` is
the number of leading entries that are not measurements. Summaries are computed by `hvbench.analysis` when records are
read, and never stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hvbench.spec.knob import Spec
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings

# Schema history, newest first:
#   5   point: of a script, too; compile, recompute; model: null there; ranks: no entries in lists of what a script does not log; profile; energy, gpu_state
#       outcome: stopped; ranks: step_padding_tokens, exchange_wait_seconds, staleness, averaging_steps
#   4   ranks: ceiling: readings of the best product by one rank alone and by all together, read_at; wire; phase_seconds
#       point: encoding; parity: start; measure: turns; in_turns; outcome: step, last_loss
#   3   point: optimizers, schedules, dropout, initial_checkpoint, objectives and pretraining
#       measure: early stopping, seed_per_repeat, checkpoint_every, noise_every
#       ranks: step_tokens, first_step, stopped_by, gradient_noise, overflows; accuracy of evaluations
#   2   point: gemm; ranks: ceiling, ablation; parity, the result of the check before the sweep
#   1   point, repeat, measure, outcome, model, environment, ranks
SCHEMA_VERSION = 5

Status = Literal["ok", "oom", "failed", "timeout", "diverged", "stopped", "skipped", "interrupted"]

# Records may be untrusted: bounds keep sums and products of their values within the integers and floats of a table.
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=0, lt=2**22)]
Tokens = Annotated[int, Field(ge=0, lt=2**40)]  # times Steps is still below 2**63
Seconds = Annotated[float, Field(ge=0, lt=1e15)]
Joules = Annotated[float, Field(ge=0, lt=1e15)]
Real = Annotated[float, Field(gt=-1e100, lt=1e100)]
MaybeFinite = Real | None  # None: it was not finite (JSON has no NaN)
Line = Annotated[str, Field(max_length=4096)]

# One entry per step.
StepSeconds = Annotated[list[Seconds], Field(max_length=2**22)]
StepValues = Annotated[list[Real], Field(max_length=2**22)]
MaybeStepValues = Annotated[list[MaybeFinite], Field(max_length=2**22)]

# Of one rate, a second; ratios and sums of them are finite, too.
Readings = Annotated[list[Annotated[float, Field(gt=1, lt=1e30)]], Field(max_length=2**10)]


class Outcome(Spec):
    """How a launch ended and, for anything but `ok`, on which rank, in which phase, why, and in which log to read more."""

    status: Status
    rank: Whole | None = None
    phase: Line | None = Field(
        None,
        description="ceiling, data, pretraining, build, first_step, warmup, measure, evaluate, ablation, wire, start",
    )
    message: Line | None = Field(None, description="the exception's last line, or the reason")
    log: Line | None = Field(None, description="path of the worker's log, relative to the run folder where possible")
    step: Whole | None = Field(
        None, description="steps that were done, at least, where a training was ended by something else than its loss"
    )
    last_loss: MaybeFinite = Field(None, description="training loss of the last of them, on the rank that is named")

    @property
    def reason(self) -> str | None:
        """The message, and how far the training had come."""
        if self.step is None:
            return self.message
        loss = "" if self.last_loss is None else f", loss {self.last_loss:.4g}"
        return f"{self.message or self.status} (after {self.step} step{'' if self.step == 1 else 's'}{loss})"


class ModelFacts(Spec):
    """Sizes that follow from the point, stored so that MFU can be recomputed from the record alone."""

    parameters: Whole
    trained_parameters: Whole | None = Field(
        None, description="those that an update changes; null: all, before there was a choice"
    )
    parameters_in_flops: Whole = Field(description="N of 6N + 12LHQT: all but the learned positions")
    model_flops_per_token: Whole
    tokens_per_step: Tokens
    allreduce_bytes_per_step: Whole = Field(description="payload per rank per step as it goes on the wire")


ClassValues = Annotated[list[Whole], Field(max_length=1000)]


class LabelCounts(Spec):
    """Of each class: `hvbench.training.metrics.ClassCounts`, of one rank's share."""

    hits: ClassValues
    predictions: ClassValues
    occurrences: ClassValues

    @model_validator(mode="after")
    def _require_one_number_of_classes(self) -> LabelCounts:
        if not len(self.hits) == len(self.predictions) == len(self.occurrences):
            raise ValueError("hits, predictions and occurrences are of different numbers of classes")
        return self


class LabelMoments(Spec):
    """Of predicted and actual numbers: `hvbench.training.metrics.Moments`, of one rank's share."""

    count: Whole
    predicted_mean: Real
    actual_mean: Real
    predicted_squares: Real
    actual_squares: Real
    products: Real


class Evaluation(Spec):
    """One evaluation: a pass of one rank over its share of the held-out samples."""

    step: Steps = Field(description="steps done before it")
    loss: MaybeFinite
    samples: Tokens
    seconds: Seconds
    training_seconds: Seconds = Field(description="clock of training alone since the first step's start")
    targets: Tokens | None = Field(
        None, description="tokens that the loss is a mean over; left out: as many in each sample"
    )
    accuracy: MaybeFinite = Field(
        None,
        description="share of samples whose class, or words whose tag, was named first, or of pairs of texts (next_sentence)",
    )
    label_counts: LabelCounts | None = Field(None, description="of classes and tags")
    label_moments: LabelMoments | None = Field(None, description="of regression")
    entity_counts: LabelCounts | None = Field(None, description="of the types of entities, where tags are BIO tags")


class GradientNoise(Spec):
    """Gradient norms of one step's batch on one rank, for the gradient noise scale; measured outside the timed steps."""

    step: Steps = Field(description="steps done before it")
    micro_gradient_norms: list[MaybeFinite] = Field(
        max_length=2**20, description="L2 norm of each micro-batch's gradient, the mean over its samples, unscaled"
    )
    gradient_norm: MaybeFinite = Field(description="of the average over accumulation steps and ranks")
    seconds: Seconds


class Overflow(Spec):
    """Where the gradients of a skipped step overflowed fp16: found by repeating the batch outside the timed steps."""

    step: Steps = Field(description="steps done before it")
    loss_scale: Real
    is_own: bool = Field(
        description="in this rank's own backward passes; on no rank: on the wire, where fp16 is summed over ranks"
    )


class WireLook(Spec):
    """What the wire's number format lost of one rank's gradients of one batch; looked at outside the timed steps."""

    step: Steps = Field(
        description="steps done before it; its batch is that of the last of them, or of the one that failed"
    )
    loss_scale: Real = Field(ge=1)
    values: Whole = Field(description="values of this rank's own gradients that are finite and not zero")
    norm: MaybeFinite = Field(description="L2 norm of these, times the loss scale")
    underflows: Whole = Field(description="of these: fewer than half of the format's bits left on the wire, or none")
    zeros: Whole = Field(description="of the underflows: zero on the wire")
    underflow_norm: MaybeFinite = Field(description="L2 norm of what underflows, times the loss scale")
    overflows: Whole = Field(description="infinite on the wire, or after its sum over the ranks")


class Ceiling(Spec):
    """The highest rates that this rank's framework and device reach while all ranks measure; see `hvbench.worker.ceiling`."""

    gemm_flops_per_second: Real = Field(gt=0, description="matrix product at its best shape, in the point's precision")
    gemm_shape: list[Whole] = Field(description="(rows, inner, columns) of that product")
    model_gemm_flops_per_second: Real = Field(gt=0, description="over the model's own products, forward and backward")
    fp32_gemm_flops_per_second: Real = Field(gt=0, description="best shape in fp32")
    memory_bandwidth_bytes_per_second: Real = Field(gt=0, description="of an in-place scaling, bytes read and written")
    allreduce_busbw_bytes_per_second: Real | None = Field(description="busbw of `allreduce_bytes`; None: one rank")
    allreduce_bytes: Whole = Field(
        description="what that all-reduce put on the wire: as many bytes as the point's gradients, but at most 64 MiB"
    )
    is_emulated: bool = Field(description="rounded to the precision, multiplied in fp32")
    together_flops_per_second: Readings = Field(
        [],
        description="readings of the shape that rank 0 found best, a round each, while all ranks multiply; no part of "
        "what it was chosen by",
    )
    alone_flops_per_second: Readings = Field(
        [], description="the same while this rank multiplies and the others rest: rank 0 of several"
    )
    read_at: Line | None = Field(
        None, description="when an earlier launch read all but these readings, UTC, ISO 8601; None: this one did"
    )


class Ablation(Spec):
    """Seconds of steps with parts left out, one entry per round; rounds run between timed steps, the kinds in turn."""

    forward_seconds: list[Seconds] = Field(description="forward passes alone")
    backward_seconds: list[Seconds] = Field(description="forward and backward passes, no all-reduce, no update")
    local_step_seconds: list[Seconds] = Field(description="the whole step but its all-reduce")
    step_seconds: list[Seconds] = Field(description="the whole step; with sync_every above 1 one that ends a round")
    allreduce_seconds: list[Seconds] = Field(
        description="all-reduce of all gradients alone, or the average that ends a round; empty with one rank"
    )
    clock_seconds: list[Seconds] = Field(
        default=[], description="nothing at all: what the clock itself adds to each kind"
    )
    barrier_seconds: list[Seconds] = Field(
        default=[], description="the barrier before each kind, which no clock contains"
    )


class Energy(Spec):
    """What a rank's timed steps drew, pauses left out."""

    seconds: Seconds = Field(description="of metering: the timed steps and their waits for batches")
    gpu_joules: Joules | None = Field(description="its whole GPU; null: nothing measures it")
    cpu_joules: Joules | None = Field(
        description="all processor packages of its host, whoever uses them; null: nothing measures it, or local rank 0 does"
    )


class GpuState(Spec):
    """How a rank's GPU ran at the end of the training, by its driver."""

    sm_clock_mhz: Real | None
    memory_clock_mhz: Real | None
    power_watts: Real | None
    power_limit_watts: Real | None = Field(description="what holds at that moment")
    temperature_celsius: Real | None


class OperatorTime(Spec):
    """What an operator of a framework took in a step, without those that it called, on one rank."""

    count: Real = Field(ge=0, description="calls a step")
    seconds: Seconds = Field(description="a step, on the host")
    device_seconds: Seconds = Field(0.0, description="a step, on a GPU")


class Profile(Spec):
    """What the framework's own profiler recorded of a few steps of one rank, after the timed ones."""

    steps: Steps
    step_seconds: Seconds = Field(description="of these steps, which the profiler makes longer; their mean")
    operators: dict[Line, OperatorTime] = Field(
        max_length=2**10, description="those of the longest time, and `outside of operators`"
    )
    traces: list[Line] = Field([], max_length=16, description="files that Perfetto opens, relative to the run folder")
    problem: Line | None = Field(None, description="why something is missing")


class RankSamples(Spec):
    """What one rank measured. Lists have one entry per step, warm-up included."""

    rank: Whole
    host: Line
    local_rank: Whole
    threads: Whole
    device: Line
    step_seconds: StepSeconds
    data_seconds: StepSeconds
    loss: MaybeStepValues
    gradient_norm: MaybeStepValues
    learning_rate: StepValues
    loss_scale: StepValues
    skipped_steps: list[Steps] = Field(description="steps whose update fp16 overflow dropped")
    averaging_steps: Annotated[list[Steps], Field(max_length=2**22)] = Field(
        [], description="steps that ended in an average of the ranks' parameters: `sync_every`"
    )
    step_tokens: Annotated[list[Tokens], Field(max_length=2**22)] = Field(
        [], description="tokens of each step over all ranks; records without it had the same in all steps"
    )
    step_padding_tokens: Annotated[list[Tokens], Field(max_length=2**22)] = Field(
        [],
        description="padding of each step over all ranks, which step_tokens does not count; of rows of documents and of labelled texts",
    )
    exchange_wait_seconds: StepSeconds = Field(
        [],
        description="of each step: from this rank's last own gradient to the averages over the ranks; empty where nothing says it",
    )
    staleness: StepValues = Field(
        [], description="with parameter servers: updates by other ranks since this rank's parameters were pulled"
    )
    evaluations: list[Evaluation]
    test: Evaluation | None = Field(None, description="of the test split, read once, after the last step")
    gradient_noise: list[GradientNoise] = Field([], description="where `measure.noise_every` asked for it")
    overflows: list[Overflow] = Field([], max_length=2**22, description="one for each of `skipped_steps`")
    wire: list[WireLook] = Field(
        [],
        max_length=2**10,
        description="where gradients are compressed, at the training's end; in the first launch of a seed, and in those that diverged",
    )
    first_step: Steps = Field(0, description="updates that the initial checkpoint had done; lists begin after them")
    stopped_by: Literal["target", "patience", "search"] | None = Field(
        None, description="what ended the training early"
    )
    data_prepare_seconds: Seconds
    build_seconds: Seconds
    peak_rss_bytes: Whole = Field(description="high-water mark; with ablations, of what came before their first round")
    start_rss_bytes: Whole = Field(description="RSS before the point: interpreter, framework, allocator leftovers")
    peak_device_memory_bytes: Whole | None
    energy: Energy | None = Field(None, description="null: nothing measures any")
    gpu_state: GpuState | None = Field(None, description="null: no GPU, or nothing says it")
    phase_seconds: Annotated[dict[Line, Seconds], Field(max_length=64)] = Field(
        {},
        description="wall time in each phase (Outcome.phase names them), `start` in a set's first point; turn: waiting for one",
    )
    ceiling: Ceiling | None = None
    ablation: Ablation | None = Field(None, description="where `measure.ablation_rounds` asked for it")
    profile: Profile | None = Field(None, description="where `measure.profile_rounds` asked for it")


NOT_PROVEN, NOT_COMPARED, PROVEN = VERDICTS = ("not proven", "not compared", "proven")  # the worst first


class ParityStamp(Spec):
    """Result of the parity check before the sweep: this configuration in this framework against its counterpart."""

    is_proven: bool
    counterpart: Line = Field(description="the framework that it was compared with")
    updates: Whole = Field(description="optimizer updates that both trained")
    logits_relative_error: MaybeFinite
    loss_relative_error: MaybeFinite = Field(description="largest over the updates and ranks")
    gradient_relative_error: MaybeFinite = Field(description="largest over the tensors and ranks")
    update_relative_error: MaybeFinite = Field(description="largest over the tensors and ranks")
    logits_tolerance: float | None = None
    loss_tolerance: float | None = None
    gradient_tolerance: float | None = None
    update_tolerance: float | None = None
    overflows: Whole = Field(description="loss scales tried before the first gradient without overflow")
    worst: Line | None = Field(description="the quantity that uses up most of its tolerance")
    worst_relative_error: MaybeFinite
    worst_tolerance: Real | None
    problem: Line | None = Field(None, description="why nothing could be compared")
    start: Line | None = Field(
        None, description="digest of the pretrained weights that this launch and its counterpart's both start from"
    )

    @property
    def verdict(self) -> str:
        """One of VERDICTS: a check that could not be made has shown no difference."""
        return PROVEN if self.is_proven else NOT_COMPARED if self.problem else NOT_PROVEN


def kind_of_point(point: Any) -> str:
    """Which of its two kinds a record's point is: `twin` or `script`, which alone has a command."""
    is_script = "command" in point if isinstance(point, Mapping) else isinstance(point, ScriptPoint)
    return "script" if is_script else "twin"


AnyPoint = Annotated[
    Annotated[Point, Tag("twin")] | Annotated[ScriptPoint, Tag("script")], Discriminator(kind_of_point)
]


class Record(Spec):
    """One launch of one point."""

    schema_version: Literal[5] = SCHEMA_VERSION
    suite: Line
    point_id: Line
    point: AnyPoint
    repeat: Whole
    generation: Whole | None = Field(None, description="which set of workers ran it")
    measure: MeasureSettings
    outcome: Outcome
    model: ModelFacts | None = Field(description="null: a script's, which hvbench does not know")
    environment: dict[str, Any]
    ranks: list[RankSamples]
    parity: ParityStamp | None = Field(None, description="None: nothing was checked")
    started_at: Line = Field(description="UTC, ISO 8601")
    duration_seconds: Seconds = Field(
        description="wall time of the point, set-up included, without what it waited for its turns"
    )
    in_turns: bool = Field(
        False,
        description="workers of other frameworks, or of the other arm, lived at the same time and took turns with its own",
    )

    @property
    def is_script(self) -> bool:
        """Whether people's own training was measured, of which hvbench knows no model."""
        return isinstance(self.point, ScriptPoint)

    @property
    def key(self) -> str:
        """Key of the launch, `POINT_ID.rREPEAT`: the same for all attempts at it."""
        return f"{self.point_id}.r{self.repeat}"

    @property
    def is_measured(self) -> bool:
        """Whether the launch is evidence: it ended in `ok`, and every rank has timed steps."""
        timed = [len(rank.step_seconds) > self.warmup_steps for rank in self.ranks]
        return self.outcome.status == "ok" and bool(timed) and all(timed)

    @property
    def trained_seed(self) -> int:
        """The seed of this launch: its point's, plus the repeat where the settings give each repeat one of its own."""
        return self.measure.seed_of(self.point.seed, repeat=self.repeat)

    @property
    def warmup_steps(self) -> int:
        """Number of leading entries of each list of samples that are not measurements."""
        return self.measure.warmup_steps


def finite_or_none(value: float) -> float | None:
    """The value, or None for NaN and infinities, which JSON lacks."""
    return value if math.isfinite(value) else None
