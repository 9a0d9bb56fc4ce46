"""The update rule, and what its paper sets otherwise than the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import Knob, Part


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An update rule; `hvbench.training.optimizers` says how it computes."""

    name: str  # as its paper writes it
    # Fields that its paper sets otherwise than the defaults of a point, which are AdamW's for a GPT.
    settings: Mapping[str, float] = field(default_factory=dict)
    slots: tuple[str, ...] = ()  # arrays that it keeps between updates, each of every parameter's shape
    keeps_only_with_momentum: bool = False
    is_factored: bool = False  # it keeps second moments, but of matrices their means over rows and over columns


MOMENTS = ("first_moments", "second_moments")
# Rates: 1e-2 of Adafactor is its paper's, 0.1 of SGD Goyal et al.'s; those of LAMB and LARS train `tiny` without upsetting it.
OPTIMIZERS = {
    "adamw": Optimizer(name="AdamW", slots=MOMENTS),
    "sgd": Optimizer(
        name="SGD",
        slots=("momenta",),
        keeps_only_with_momentum=True,
        settings={"learning_rate": 0.1, "weight_decay": 1e-4},
    ),
    "adafactor": Optimizer(name="Adafactor", is_factored=True, settings={"learning_rate": 1e-2, "weight_decay": 0.0}),
    "lamb": Optimizer(
        name="LAMB",
        slots=MOMENTS,
        settings={"learning_rate": 2e-2, "weight_decay": 0.01, "beta2": 0.999, "epsilon": 1e-6},
    ),
    "lars": Optimizer(name="LARS", slots=("momenta",), settings={"learning_rate": 1.0, "weight_decay": 1e-4}),
}


def _name_rule(text: str) -> str:
    return OPTIMIZERS[text].name if text in OPTIMIZERS else text


class OptimizerPart(Part):
    """Which rule updates the parameters."""

    title = "Optimizer"
    presets = {"optimizer": {name: optimizer.settings for name, optimizer in OPTIMIZERS.items()}}

    optimizer: Annotated[Literal[*OPTIMIZERS], Knob(in_words=_name_rule)] = Field(
        "adamw", description="update rule; any but adamw has defaults of its own for some of the following"
    )
