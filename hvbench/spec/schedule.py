"""What changes from step to step: the learning rate, the size of the batch, and the length of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part, needs_one_of


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A course of the learning rate after its warm-up."""

    has_end: bool  # it reaches its lowest rate at `schedule_steps`
    follows_loss: bool = False  # it falls by what evaluations say, and is constant until then


SCHEDULES = {
    "constant": Schedule(has_end=False),
    "cosine": Schedule(has_end=True),
    "linear": Schedule(has_end=True),
    "inverse_sqrt": Schedule(has_end=False),
    "plateau": Schedule(has_end=False, follows_loss=True),
}


SCALINGS = {"none": "no rate scaling", "linear": "linear rate scaling", "sqrt": "square-root rate scaling"}


def _name_schedule(text: str) -> str:
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text.replace('_', '-')} schedule"


def _name_scaling(text: str) -> str:
    return SCALINGS.get(text, text)


def _name_layer_decay(text: str) -> str:
    return "one rate for all layers" if text in ("1.0", "1") else f"layer-wise decay {text}"


def _name_batch_warmup(text: str) -> str:
    return "a full batch from the start" if text == "0" else f"a batch that grows over {text} steps"


def _warm_up_takes_all_steps(point: AnyPoint) -> str | None:
    if SCHEDULES[point.schedule].has_end and point.lr_warmup_steps >= point.schedule_steps:
        return f"lr_warmup_steps {point.lr_warmup_steps} leaves nothing of schedule_steps {point.schedule_steps}"
    return None


def _goes_on_from_a_plateau(point: AnyPoint) -> str | None:
    if SCHEDULES[point.schedule].follows_loss and point.initial_checkpoint:
        return f"schedule {point.schedule} follows the losses of evaluations, which initial_checkpoint does not have"
    return None


def _no_passes_to_raise(point: AnyPoint) -> str | None:
    if point.batch_warmup_steps and point.gradient_accumulation_steps == 1:
        return "batch_warmup_steps raises gradient_accumulation_steps, which is 1"
    return None


def _name_length_warmup(text: str) -> str:
    return "full length from the start" if text == "0" else f"samples that grow over {text} steps"


def _too_short_to_grow(point: AnyPoint) -> str | None:
    if point.length_warmup_steps and point.sequence_length < LENGTH_STAGES:
        return f"length_warmup_steps: sequence_length {point.sequence_length} is too short to grow; at least {LENGTH_STAGES}"
    return None


# The lengths of a length warm-up, in equal parts of sequence_length, the whole included: few, for each is another shape, for
# which TensorFlow traces its graphs anew.
LENGTH_STAGES = 4

OF_SCALING = needs_one_of("lr_scaling", ("linear", "sqrt"))
OF_AN_END = needs_one_of("schedule", (name for name, schedule in SCHEDULES.items() if schedule.has_end))


OF_A_PLATEAU = needs_one_of("schedule", (name for name, schedule in SCHEDULES.items() if schedule.follows_loss))


class SchedulePart(Part):
    """Learning rate and batch over the steps."""

    title = "Learning rate and schedule"

    learning_rate: Annotated[float, Field(gt=0.0, le=100.0), Knob(in_words="rate {}".format)] = Field(
        1e-3, description="peak of the schedule"
    )
    lr_scaling: Annotated[Literal[*SCALINGS], Knob(in_words=_name_scaling)] = Field(
        "none", description="of learning_rate with the global batch"
    )
    reference_batch_size: Annotated[Count, Knob(unit="samples", needs=(OF_SCALING,))] = Field(
        16, description="global batch size at which learning_rate is scaled by 1"
    )
    layer_lr_decay: Annotated[float, Field(gt=0.0, le=1.0), Knob(in_words=_name_layer_decay)] = Field(
        1.0, description="factor of a block's learning rate to that of the block above it; 1: the same everywhere"
    )
    schedule: Annotated[Literal[*SCHEDULES], Knob(in_words=_name_schedule, impossible=_goes_on_from_a_plateau)] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    lr_warmup_steps: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", impossible=_warm_up_takes_all_steps)
    ] = Field(10, description="linear warm-up, in steps")
    schedule_steps: Annotated[Count, Knob(unit="steps", needs=(OF_AN_END,))] = Field(
        1000, description="step at which cosine and linear reach a tenth of the peak"
    )
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0), Knob(needs=(OF_A_PLATEAU,))] = Field(
        0.1, description="by which plateau multiplies the rate where evaluations no longer improve"
    )
    plateau_patience: Annotated[int, Field(ge=1, le=1_000_000), Knob(unit="evaluations", needs=(OF_A_PLATEAU,))] = (
        Field(2, description="evaluations in a row without a better loss before it does")
    )
    batch_warmup_steps: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", impossible=_no_passes_to_raise, in_words=_name_batch_warmup)
    ] = Field(0, description="steps over which the batch grows, pass by pass, to all its accumulation steps; 0: none")
    length_warmup_steps: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", impossible=_too_short_to_grow, in_words=_name_length_warmup)
    ] = Field(0, description="steps over which samples grow from a quarter of sequence_length, in quarters; 0: none")
