"""Which parameters of a model train, and what is added to it for that: parameter-efficient fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part, needs_one_of
from hvbench.spec.model import FAMILIES

ADAPTATIONS = {
    "full": "all parameters",
    "lora": "LoRA",
    "adapter": "adapters",
    "prefix": "prefixes",
    "bias": "biases alone",
    "head": "the head alone",
    "last_layers": "the last layers alone",
}
# What LoRA is added to, of the linear layers of each block; None: to all of them.
LORA_TARGETS: dict[str, tuple[str, ...] | None] = {
    "qkv": ("attention.qkv",),
    "attention": ("attention.qkv", "attention.out"),
    "linear": None,
}

OF_LORA = needs_one_of("adaptation", ("lora",))
OF_ADAPTERS = needs_one_of("adaptation", ("adapter",))
OF_PREFIXES = needs_one_of("adaptation", ("prefix",))
OF_LAST_LAYERS = needs_one_of("adaptation", ("last_layers",))


def _nothing_to_train(point: AnyPoint) -> str | None:
    if point.adaptation == "bias" and not FAMILIES[point.family].has_biases:
        return f"adaptation bias: family {point.family} has no biases to train"
    has_head = point.predicts_labels or not point.tied_embeddings or FAMILIES[point.family].has_heads
    if point.adaptation == "head" and not has_head:
        return (
            "adaptation head: the output projection is the token embedding, which is no head of its own; it needs objective "
            "classification, or tied_embeddings = false"
        )
    return None


def _more_than_there_are(point: AnyPoint) -> str | None:
    if point.adaptation == "last_layers" and point.trained_layers > point.num_layers:
        return f"trained_layers {point.trained_layers} is more than num_layers {point.num_layers}"
    return None


def _more_than_the_whole_rank(point: AnyPoint) -> str | None:
    if point.adaptation != "lora":
        return None
    narrowest = min(point.hidden_size, point.mlp_width) if point.lora_targets == "linear" else point.hidden_size
    if point.lora_rank > narrowest:
        return (
            f"lora_rank {point.lora_rank} is more than {narrowest}, the rank of the smallest matrix that it is added to"
        )
    return None


def _name_adaptation(text: str) -> str:
    return ADAPTATIONS.get(text, text)


class AdaptationPart(Part):
    """Which parameters train. All others take no gradient, no state of the optimizer and no place on the wire."""

    title = "Adaptation"

    adaptation: Annotated[Literal[*ADAPTATIONS], Knob(in_words=_name_adaptation, impossible=_nothing_to_train)] = Field(
        "full", description="what trains beside a classifier's projection: all, or a small part, or what is added"
    )
    lora_rank: Annotated[
        int,
        Field(ge=1, le=4096),
        Knob(needs=(OF_LORA,), in_words="rank {}".format, impossible=_more_than_the_whole_rank),
    ] = Field(8, description="r of LoRA's W + alpha / r A B")
    lora_alpha: Annotated[float, Field(gt=0.0, le=1e6), Knob(needs=(OF_LORA,), in_words="alpha {}".format)] = Field(
        16.0, description="alpha of that"
    )
    lora_targets: Annotated[Literal[*LORA_TARGETS], Knob(needs=(OF_LORA,), in_words="LoRA of {}".format)] = Field(
        "qkv", description="W of that, in each block: queries, keys and values; attention; all linear layers"
    )
    adapter_size: Annotated[
        int, Field(ge=1, le=65536), Knob(needs=(OF_ADAPTERS,), in_words="bottlenecks of {}".format)
    ] = Field(64, description="width of the bottleneck behind each attention and each MLP")
    prefix_length: Annotated[
        int, Field(ge=1, le=65536), Knob(needs=(OF_PREFIXES,), unit="tokens", in_words="prefixes of {}".format)
    ] = Field(16, description="keys and values in front of those of each attention's text, which all positions see")
    trained_layers: Annotated[Count, Knob(needs=(OF_LAST_LAYERS,), impossible=_more_than_there_are)] = Field(
        1, description="blocks, from the last, that train with the final norm and an output projection of its own"
    )

    @property
    def num_prefixes(self) -> int:
        """Keys and values in front of each attention's own."""
        return self.prefix_length if self.adaptation == "prefix" else 0

    @property
    def trained_part(self) -> str:
        """What trains, as a checkpoint says it: two of the same words continue the same model with state of the same parameters."""
        if self.adaptation == "lora":
            return f"lora of alpha {self.lora_alpha:g}"
        return f"{self.trained_layers} last_layers" if self.adaptation == "last_layers" else self.adaptation
