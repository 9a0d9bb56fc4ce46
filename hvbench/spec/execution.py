"""How the model's operations run: which activations are computed twice instead of kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import Knob, Part


def _recomputed(text: str) -> str:
    return "all activations kept" if text == "none" else f"{text} recomputed"


class ExecutionPart(Part):
    """Choices that change time and memory, and no result beyond rounding."""

    title = "Execution"

    recompute: Annotated[Literal["none", "block", "attention"], Knob(in_words=_recomputed)] = Field(
        "none", description="computed again in the backward pass: each whole block, or the attention half of it"
    )
