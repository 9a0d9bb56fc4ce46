"""How a suite's points are measured, and what a point cannot give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from hvbench.errors import UsageError
from hvbench.spec.exchange import REDUCTIONS, STRATEGIES
from hvbench.spec.knob import AnyPoint, AnySettings, AutoSwitch, Count, Knob, Spec, needs_set
from hvbench.spec.messages import shorten, validate
from hvbench.spec.rounds import first_apart
from hvbench.spec.schedule import SCHEDULES
from hvbench.spec.sizes import LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES, parse_memory


def _checkpoint_within_a_round(settings: AnySettings, point: AnyPoint) -> str | None:
    return _saves_within_a_round("checkpoint_every", settings.checkpoint_every, settings, point)


def _best_within_a_round(settings: AnySettings, point: AnyPoint) -> str | None:
    every = settings.evaluate_every if settings.keep_best else 0
    return _saves_within_a_round("keep_best with evaluate_every", every, settings, point)


def _saves_within_a_round(name: str, every: int, settings: AnySettings, point: AnyPoint) -> str | None:
    return _within_a_round(name, every, settings, point) if every and point.has_local_updates else None


def _within_a_round(name: str, every: int, settings: AnySettings, point: AnyPoint) -> str | None:
    """Why something cannot happen after every so many updates that needs the same parameters on all ranks."""
    steps = settings.warmup_steps + settings.steps
    if point.initial_checkpoint:  # after an exchange, of which the number is not known here
        is_apart = every % point.sync_every
        return f"{name} {every} is no multiple of sync_every {point.sync_every}" if is_apart else None
    count = first_apart(point, range(every, steps + 1, every))
    if count is None:
        return None
    return f"{name} {every}: {count} updates end in the middle of a round of sync_every {point.sync_every}, where ranks have parameters of their own"


def _no_whole_rounds(settings: AnySettings, point: AnyPoint) -> str | None:
    if point.has_local_updates and settings.epochs is None and settings.steps % point.sync_every:
        return (
            f"steps {settings.steps} are no whole number of rounds of sync_every {point.sync_every}: their time would hold too many exchanges, "
            "or too few"
        )
    return None


def _sends_gradients_still(settings: AnySettings, point: AnyPoint) -> str | None:
    if point.sends_momenta and point.onebit_warmup_steps > settings.warmup_steps:
        return (
            f"warmup_steps {settings.warmup_steps}: compression {point.compression} averages gradients in the first onebit_warmup_steps "
            f"{point.onebit_warmup_steps}, and timed steps would be of two kinds; give at least as many warmup_steps"
        )
    return None


def _cannot_train(settings: AnySettings, point: AnyPoint) -> str | None:
    return _never_reaches_full_length(settings, point) or _no_whole_rounds(settings, point)


def _server_is_in_every_step(settings: AnySettings, point: AnyPoint) -> str | None:
    if settings.ablation_rounds and point.is_served:
        return f"ablation_rounds: no step goes without the server, which updates, for the strategy is {point.strategy}"
    return None


def _nothing_is_averaged(settings: AnySettings, point: AnyPoint) -> str | None:
    is_averaged = STRATEGIES[point.strategy].is_horovod and REDUCTIONS[point.reduction].is_average
    if settings.noise_every and not is_averaged:
        return "noise_every compares with gradients that Horovod averages"
    if settings.noise_every and point.has_local_updates:
        return _within_a_round("noise_every", settings.noise_every, settings, point)
    return None


def _no_loss_to_follow(settings: AnySettings, point: AnyPoint) -> str | None:
    if SCHEDULES[point.schedule].follows_loss and not settings.evaluate_every:
        return f"schedule {point.schedule} follows the losses of evaluations: set evaluate_every"
    return None


def _never_reaches_full_length(settings: AnySettings, point: AnyPoint) -> str | None:
    steps = settings.warmup_steps + settings.steps
    if point.length_warmup_steps >= steps and not point.initial_checkpoint:
        return (
            f"length_warmup_steps {point.length_warmup_steps} leaves none of {steps} steps (warmup_steps and steps) "
            "at the full sequence_length"
        )
    return None


def _read_memory(value: Any) -> Any:
    """A size in words as bytes; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_memory(value)
    except ValueError as error:
        raise ValueError(str(error).replace("is not a size", "must be a size in bytes or text", 1)) from None


EVALUATIONS = needs_set("evaluate_every")
LENGTHS = ("steps", "epochs")  # either says how long points train
MEMORY_SCHEMA = {"anyOf": [{"type": "integer", "minimum": LEAST_MEMORY_BYTES}, {"type": "string"}, {"type": "null"}]}


def check_measure(values: Mapping[str, Any], *, where: str) -> MeasureSettings:
    """The settings of these values, which were set together. Raises UsageError, one line that begins with `where`."""
    require_one_length(values, where=where)
    return validate(MeasureSettings, values, where=where)


def require_one_length(values: Mapping[str, Any], *, where: str) -> None:
    """Raise UsageError where values that were set together say twice how long points train."""
    if all(values.get(name) is not None for name in LENGTHS):
        steps, epochs = (shorten(values[name]) for name in LENGTHS)
        raise UsageError(f"{where}: steps = {steps} and epochs = {epochs} both say how long to train: set one of them")


class MeasureSettings(Spec):
    """How a suite's points are measured. Part of a record, not of a point's identity."""

    warmup_steps: Annotated[int, Field(ge=1, le=10_000), Knob(unit="steps", unmeasurable=_sends_gradients_still)] = (
        Field(3, description="leading steps left out, the first included")
    )
    steps: Annotated[int, Field(ge=1, le=1_000_000), Knob(unit="steps", unmeasurable=_cannot_train)] = Field(
        10, description="timed steps"
    )
    epochs: Annotated[Annotated[float, Field(gt=0.0, le=10_000.0)] | None, Knob(unit="epochs")] = Field(
        None,
        description="passes over the training samples, the warm-up included: the data then says how many steps, not steps",
    )
    repeats: Annotated[int, Field(ge=1, le=100), Knob(unit="launches", changes_samples=False)] = Field(
        1, description="launches with fresh workers, interleaved"
    )
    turns: AutoSwitch = Field(
        "auto",
        description="frameworks live at the same time and take turns; auto: on CPUs of one host with memory for all",
    )
    evaluate_every: Annotated[int, Field(ge=0, le=1_000_000), Knob(unit="steps", unmeasurable=_no_loss_to_follow)] = (
        Field(0, description="steps between evaluations, and one after the last step; 0: none")
    )
    evaluate_samples: Annotated[Count, Knob(unit="samples", needs=(EVALUATIONS,))] = Field(
        64, description="held-out samples per evaluation, each once, over all ranks"
    )
    target_loss: Annotated[Annotated[float, Field(gt=0.0)] | None, Knob(unit="nats/token", needs=(EVALUATIONS,))] = (
        Field(None, description="validation loss to reach")
    )
    stop_at_target: Annotated[bool, Knob(needs=(needs_set("target_loss"), EVALUATIONS))] = Field(
        False, description="train no further once an evaluation is at or under target_loss"
    )
    patience: Annotated[int, Field(ge=0, le=1_000_000), Knob(unit="evaluations", needs=(EVALUATIONS,))] = Field(
        0, description="evaluations without a better loss before giving up; 0: never"
    )
    seed_per_repeat: bool = Field(False, description="repeat r trains with seed + r: an interval then covers seeds")
    checkpoint_every: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", unmeasurable=_checkpoint_within_a_round)
    ] = Field(0, description="steps between checkpoints; 0: none")
    keep_best: Annotated[bool, Knob(needs=(EVALUATIONS,), unmeasurable=_best_within_a_round)] = Field(
        False,
        description="keep a checkpoint of the evaluation with the lowest loss; the test split, if there is one, is read with it",
    )
    noise_every: Annotated[int, Field(ge=0, le=1_000_000), Knob(unit="steps", unmeasurable=_nothing_is_averaged)] = (
        Field(0, description="steps between looks at the gradient noise; 0: none")
    )
    force_emulated: bool = Field(False, description="run precisions that take over 20 times as long as fp32, too")
    ceilings: bool = Field(
        True,
        description="time bare products, memory and all-reduce before a point; no slow emulation is skipped without",
    )
    fresh_ceilings: Annotated[bool, Knob(needs=(needs_set("ceilings"),))] = Field(
        False,
        description="read all of these anew; else a few launches do, and later ones on the same machine use what was kept",
    )
    ablation_rounds: Annotated[
        int, Field(ge=0, le=1_000), Knob(unit="rounds", unmeasurable=_server_is_in_every_step)
    ] = Field(0, description="rounds of steps with parts left out, spread over the timed steps; 0: none")
    profile_rounds: Annotated[int, Field(ge=0, le=100), Knob(unit="launches")] = Field(
        0,
        description="launches of a script in which the framework's own profiler records steps after the timed ones; 0: none",
    )
    precision_target: Annotated[Annotated[float, Field(gt=0.0, lt=1.0)] | None, Knob(changes_samples=False)] = Field(
        None,
        description="to which frameworks' ratio is to be known, by more rounds (0.03: ± 3 %); tokens/s, where none take turns",
    )
    budget_seconds: Annotated[
        Annotated[float, Field(gt=0.0)] | None,
        Knob(unit="s", changes_samples=False, needs=(needs_set("precision_target"),)),
    ] = Field(None, description="time for those launches; left out: 1800")
    memory_limit_bytes: Annotated[
        Annotated[int, Field(ge=LEAST_MEMORY_BYTES, lt=MOST_MEMORY_BYTES)] | None,
        BeforeValidator(_read_memory),
        WithJsonSchema(MEMORY_SCHEMA),
        Knob(unit="bytes", changes_samples=False),
    ] = Field(
        None,
        description='resident memory that one worker may need, such as "2 GiB": beyond it a launch ends in oom; left out: no limit',
    )
    timeout_seconds: Annotated[Annotated[float, Field(gt=0.0)] | None, Knob(unit="s", changes_samples=False)] = Field(
        None, description="of one point; left out: from the plan"
    )

    def changed_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What is set here, or by `changes`, of which a length replaces the other one."""
        replaced = LENGTHS if any(name in changes for name in LENGTHS) else ()
        kept = {name: value for name, value in self.model_dump(exclude_unset=True).items() if name not in replaced}
        return kept | dict(changes)

    def seed_of(self, seed: int, *, repeat: int) -> int:
        """The seed that launch `repeat` of a point with `seed` trains with."""
        return (seed + (repeat if self.seed_per_repeat else 0)) % 2**31
