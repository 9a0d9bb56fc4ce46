"""How often the ranks exchange anything: local SGD, in which they train by themselves and average their parameters now and then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.exchange import REDUCTIONS
from hvbench.spec.knob import AnyPoint, Count, Knob, Need, Part, needs_one_of
from hvbench.spec.numerics import PRECISIONS

MOMENTS = {"average": "averaged moments", "keep": "moments of each rank's own", "reset": "moments that begin anew"}
OUTER_OPTIMIZERS = {"none": "no outer optimizer", "nesterov": "outer Nesterov"}
COMPRESSIONS = ("none", "fp16", "bf16")  # those that differences of parameters can be sent in

OF_LOCAL_UPDATES = Need(field="sync_every", holds=lambda value: (value or 0) > 1, in_words="sync_every above 1")
OF_AN_OUTER_STEP = needs_one_of("outer_optimizer", [name for name in OUTER_OPTIMIZERS if name != "none"])


def _nothing_to_average(point: AnyPoint) -> str | None:
    if not point.has_local_updates:
        return None
    given = f"sync_every {point.sync_every}"
    if not REDUCTIONS[point.reduction].is_average:
        return f"{given} averages parameters, and reduction is {point.reduction}"
    if point.gradient_predivide != 1.0:
        return f"{given} sends no gradients, which gradient_predivide {point.gradient_predivide:g} would divide"
    if PRECISIONS[point.precision].loss_scaling:
        return (
            f"{given}: every rank would have a loss scale of its own, which precision {point.precision} needs in common"
        )
    if point.is_sharded:
        return f"{given}: ranks that update by themselves need the whole optimizer, and shard is {point.shard}"
    if point.compression not in COMPRESSIONS:
        return f"{given} sends differences of parameters, which compression {point.compression} is not for: {', '.join(COMPRESSIONS)}"
    return None


def _name_interval(text: str) -> str:
    return "an exchange at every step" if text == "1" else f"an exchange every {text} steps"


def _name_start(text: str) -> str:
    return "local updates from the start" if text == "0" else f"local updates from step {text} on"


def _name_warmup(text: str) -> str:
    return "all rounds of the same length" if text == "0" else f"rounds that grow over {text} steps"


class LocalSgdPart(Part):
    """Updates without an exchange, and what the ranks make of their parameters after some of them."""

    title = "Local SGD"

    sync_every: Annotated[
        Count, Knob(unit="steps", in_words=_name_interval, is_of_horovod=True, impossible=_nothing_to_average)
    ] = Field(
        1,
        description="updates of a round; above 1 ranks make them by their own gradients, then average their parameters",
    )
    sync_start: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", in_words=_name_start, needs=(OF_LOCAL_UPDATES,))
    ] = Field(0, description="updates with averaged gradients before the first round")
    sync_warmup_steps: Annotated[
        int, Field(ge=0, le=1_000_000), Knob(unit="steps", in_words=_name_warmup, needs=(OF_LOCAL_UPDATES,))
    ] = Field(0, description="updates over which rounds grow from 1 to sync_every; 0: none")
    sync_moments: Annotated[
        Literal[*MOMENTS], Knob(in_words=lambda text: MOMENTS.get(text, text), needs=(OF_LOCAL_UPDATES,))
    ] = Field("average", description="what becomes of the optimizer's state where parameters are averaged")
    outer_optimizer: Annotated[
        Literal[*OUTER_OPTIMIZERS],
        Knob(in_words=lambda text: OUTER_OPTIMIZERS.get(text, text), needs=(OF_LOCAL_UPDATES,)),
    ] = Field(
        "none", description="what moves the common parameters by the average of a round; none: they become the average"
    )
    outer_learning_rate: Annotated[
        float, Field(gt=0.0, le=10.0), Knob(in_words="outer rate {}".format, needs=(OF_LOCAL_UPDATES, OF_AN_OUTER_STEP))
    ] = Field(0.7, description="of the outer optimizer")
    outer_momentum: Annotated[
        float,
        Field(ge=0.0, lt=1.0),
        Knob(in_words="outer momentum {}".format, needs=(OF_LOCAL_UPDATES, OF_AN_OUTER_STEP)),
    ] = Field(0.9, description="of the outer optimizer")

    @property
    def has_local_updates(self) -> bool:
        """Whether ranks make updates by gradients of their own, between two averages of their parameters."""
        return self.sync_every > 1

    @property
    def keeps_moments(self) -> bool:
        """Whether every rank's optimizer has a state of its own."""
        return self.has_local_updates and self.sync_moments == "keep"

    @property
    def has_outer_step(self) -> bool:
        """Whether an outer optimizer moves the common parameters."""
        return self.has_local_updates and self.outer_optimizer != "none"
