"""What the model reads, and where its training starts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hvbench.spec.knob import Part, Text


class DataPart(Part):
    """Text, seed and start."""

    title = "Data and start"

    data: Text = Field("stdlib", description='"stdlib", "synthetic", or the path of a text file or folder')
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of initial weights and of batch order")
    initial_checkpoint: Text | None = Field(
        None, description="path of a checkpoint to go on from; left out: from the seed"
    )
