"""What an update makes of a gradient: its constants, clipping, and what holds the weights back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hvbench.spec.knob import Fraction, Part


class UpdatePart(Part):
    """Constants of the update rules, clipping, weight decay and dropout."""

    title = "Update and regularization"

    momentum: Fraction = Field(0.9, description="decay of the sum of steps; sgd, lars")
    trust_coefficient: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.001, description="of the trust ratio; lars")
    beta1: Fraction = Field(0.9, description="decay of the first moment; adamw, lamb")
    beta2: Fraction = Field(0.95, description="decay of the second moment; adamw, lamb")
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1e-8, description="added to the root of the second moment; adamw, lamb, adafactor"
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="matrices and token embedding only; decoupled, but in the gradient for sgd and lars"
    )
    max_gradient_norm: Annotated[float, Field(ge=0.0)] = Field(1.0, description="global-norm clipping; 0: off")
    dropout: Fraction = Field(0.0, description="of embeddings, attention and residual branches; never in evaluations")
