"""What an update makes of a gradient: its constants, clipping, and what holds the weights back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hvbench.spec.knob import Fraction, Knob, Part, needs_one_of
from hvbench.spec.optimizer import MOMENTS, OPTIMIZERS

# Which update rules have what a constant is of.
OF_MOMENTUM = needs_one_of("optimizer", (name for name, rule in OPTIMIZERS.items() if "momenta" in rule.slots))
OF_MOMENTS = needs_one_of("optimizer", (name for name, rule in OPTIMIZERS.items() if rule.slots == MOMENTS))
OF_SECOND_MOMENTS = needs_one_of(
    "optimizer", (name for name, rule in OPTIMIZERS.items() if rule.slots == MOMENTS or rule.is_factored)
)
OF_TRUST_RATIO = needs_one_of("optimizer", ("lars",))


class UpdatePart(Part):
    """Constants of the update rules, clipping, weight decay and dropout."""

    title = "Update and regularization"

    momentum: Annotated[Fraction, Knob(needs=(OF_MOMENTUM,))] = Field(
        0.9, description="decay of the sum of steps; sgd, lars"
    )
    trust_coefficient: Annotated[float, Field(gt=0.0, le=1.0), Knob(needs=(OF_TRUST_RATIO,))] = Field(
        0.001, description="of the trust ratio; lars"
    )
    beta1: Annotated[Fraction, Knob(needs=(OF_MOMENTS,))] = Field(
        0.9, description="decay of the first moment; adamw, lamb"
    )
    beta2: Annotated[Fraction, Knob(needs=(OF_MOMENTS,))] = Field(
        0.95, description="decay of the second moment; adamw, lamb"
    )
    epsilon: Annotated[float, Field(gt=0.0, le=1.0), Knob(needs=(OF_SECOND_MOMENTS,))] = Field(
        1e-8, description="added to the root of the second moment; adamw, lamb, adafactor"
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="matrices and token embedding only; decoupled, but in the gradient for sgd and lars"
    )
    max_gradient_norm: Annotated[float, Field(ge=0.0)] = Field(1.0, description="global-norm clipping; 0: off")
    dropout: Fraction = Field(0.0, description="of embeddings, attention and residual branches; never in evaluations")
