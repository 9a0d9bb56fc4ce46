"""How many samples make a step, and how many ranks share them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part, Site


def _too_few_ranks(point: AnyPoint, site: Site) -> str | None:
    if point.world_size > site.world_size:
        return f"needs {point.world_size} ranks, {site.world_size} launched"
    return None


def _count_ranks(text: str) -> str:
    return f"{text} rank{'' if text == '1' else 's'}"


RANKS = Knob(
    label="ranks", in_words=_count_ranks, unit="ranks", column=6, is_of_launch=True, unavailable=_too_few_ranks
)


class BatchPart(Part):
    """global_batch_size = micro_batch_size x gradient_accumulation_steps x world_size."""

    title = "Batch"

    world_size: Annotated[Count | None, RANKS] = Field(
        None, description="ranks that train; left out: as many as were launched"
    )
    micro_batch_size: Annotated[
        Count, Knob(label="micro-batch", in_words="micro-batch {}".format, unit="samples", column=2)
    ] = Field(8, description="samples per rank per backward pass")
    gradient_accumulation_steps: Annotated[
        Count, Knob(label="accumulation", in_words="accumulation {}".format, unit="passes", column=3)
    ] = Field(1, description="backward passes per optimizer update")

    @property
    def global_batch_size(self) -> int:
        """Samples per step over all ranks; needs a resolved `world_size`."""
        return self.micro_batch_size * self.gradient_accumulation_steps * (self.world_size or 1)
