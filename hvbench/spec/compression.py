"""In how many bytes gradients travel: rounded to fewer bits, or a part or a sketch of them while the rest is fed back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part, needs_one_of
from hvbench.spec.numerics import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class WireFormat:
    """What the all-reduce of gradients sends for one float32 value, and how."""

    value_bytes: int
    significand_bits: int  # after the leading one
    least_exponent: int  # of a normal number: 2^least_exponent is the smallest
    operations: int = 1  # of Horovod, each negotiated between the ranks
    is_summed_by_horovod: bool = True  # else hvbench sums, between two of Horovod's copies

    @property
    def is_compressed(self) -> bool:
        """Whether gradients are cast before they are sent."""
        return self.value_bytes < 4


# Choices of `compression` that send every value by itself.
WIRE_FORMATS = {
    "none": WireFormat(value_bytes=4, significand_bits=23, least_exponent=-126),
    "fp16": WireFormat(value_bytes=2, significand_bits=10, least_exponent=-14),
    "bf16": WireFormat(
        value_bytes=2, significand_bits=7, least_exponent=-126, operations=2, is_summed_by_horovod=False
    ),
}


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What becomes of a gradient before it is sent."""

    wire: WireFormat = WIRE_FORMATS["none"]  # of each value by itself
    # Whether a rank sends less than its gradient, and adds what it did not send to its next one (error feedback; Stich,
    # arXiv:1809.07599; Karimireddy et al., arXiv:1901.09847). What it has yet to send is a residual of its own.
    feeds_back: bool = False
    operations: int = 1  # of Horovod, for each tensor
    # Whether each rank gets what every other one sends, n - 1 times a rank's bytes, and not its share of a sum.
    is_gathered: bool = False
    # Whether momenta are sent, of the optimizers that this names, when so many updates with averaged gradients are done as a point
    # says: a part of their update rule, and no way to send any gradient.
    of_momenta: tuple[str, ...] = ()

    @property
    def is_summed_by_horovod(self) -> bool:
        """Whether Horovod sums the gradients themselves, in whichever format."""
        return self.wire.is_summed_by_horovod and not self.feeds_back

    def crossing_share(self, world_size: float) -> float:
        """What crosses each rank's link, as a multiple of the bytes that it hands over: a ring's, or those of all others."""
        return world_size - 1 if self.is_gathered else 2 * (world_size - 1) / world_size


COMPRESSIONS = {
    **{name: Compression(wire=wire, operations=wire.operations) for name, wire in WIRE_FORMATS.items()},
    "topk": Compression(feeds_back=True, is_gathered=True),
    "int8": Compression(feeds_back=True, operations=2),
    "powersgd": Compression(feeds_back=True, operations=2),
    "onebit": Compression(feeds_back=True, operations=2, of_momenta=("adamw",)),
}


def _compression_does_not_fit(point: AnyPoint) -> str | None:
    if point.world_size == 1 and point.compression != "none":
        return "one rank has nothing to all-reduce: Horovod skips compression"
    compression = COMPRESSIONS[point.compression]
    if compression.feeds_back and PRECISIONS[point.precision].loss_scaling:
        return (
            f"compression {point.compression} adds what was not sent to the next gradient, and in precision "
            f"{point.precision} that may have another loss scale"
        )
    if compression.of_momenta and point.optimizer not in compression.of_momenta:
        return (
            f"compression {point.compression} sends the momenta of optimizer {', '.join(compression.of_momenta)}, not of "
            f"{point.optimizer}"
        )
    return None


def _on_the_wire(text: str) -> str:
    return "uncompressed" if text == "none" else f"{text} on the wire"


class CompressionPart(Part):
    """What of the gradients goes on the wire."""

    title = "Compression"

    compression: Annotated[
        Literal[*COMPRESSIONS],
        Knob(
            in_words=_on_the_wire,
            column=5,
            is_of_horovod=True,
            impossible=_compression_does_not_fit,
            searched=tuple(WIRE_FORMATS),
        ),
    ] = Field(
        "none",
        description="what goes on the wire; topk, int8, powersgd, onebit: less than the gradients, and what is left is added to the next ones",
    )
    topk_share: Annotated[
        float, Field(gt=0.0, le=1.0), Knob(is_of_horovod=True, needs=(needs_one_of("compression", ("topk",)),))
    ] = Field(0.01, description="of a gradient's values, the largest, that are sent; at least one")
    int8_bucket: Annotated[
        Count, Knob(unit="values", is_of_horovod=True, needs=(needs_one_of("compression", ("int8",)),))
    ] = Field(1024, description="consecutive values of a gradient that share a scale")
    powersgd_rank: Annotated[Count, Knob(is_of_horovod=True, needs=(needs_one_of("compression", ("powersgd",)),))] = (
        Field(
            4,
            description="of the product that stands for a matrix's gradient; where that is no less to send, and of vectors, all is sent",
        )
    )
    onebit_warmup_steps: Annotated[
        Count, Knob(unit="steps", is_of_horovod=True, needs=(needs_one_of("compression", ("onebit",)),))
    ] = Field(
        20, description="updates with averaged gradients before second moments freeze and momenta are sent as signs"
    )
    onebit_bucket: Annotated[
        Annotated[int, Field(ge=8, le=1_000_000, multiple_of=8)],
        Knob(unit="values", is_of_horovod=True, needs=(needs_one_of("compression", ("onebit",)),)),
    ] = Field(1024, description="consecutive values of a momentum that share a scale")

    @property
    def sends_momenta(self) -> bool:
        """Whether ranks exchange momenta after the first updates, and no gradients."""
        return bool(COMPRESSIONS[self.compression].of_momenta)
