"""The sizes of the transformer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part

MODEL_PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"num_layers": 2, "num_heads": 2, "hidden_size": 32, "vocab_size": 256, "sequence_length": 32},
    "small": {"num_layers": 4, "num_heads": 4, "hidden_size": 256, "vocab_size": 4096, "sequence_length": 128},
    "gpt2": {"num_layers": 12, "num_heads": 12, "hidden_size": 768, "vocab_size": 50257, "sequence_length": 1024},
    "gpt2-medium": {
        "num_layers": 24,
        "num_heads": 16,
        "hidden_size": 1024,
        "vocab_size": 50257,
        "sequence_length": 1024,
    },
}


def _heads_do_not_divide_width(point: AnyPoint) -> str | None:
    if point.hidden_size % point.num_heads:
        return f"hidden_size {point.hidden_size} is not a multiple of num_heads {point.num_heads}"
    return None


def _name_activation(text: str) -> str:
    return {"gelu": "exact GELU", "gelu_tanh": "GELU by its tanh form"}.get(text, text)


class ModelPart(Part):
    """A preset of sizes, and the sizes, each of which may be set by hand."""

    title = "Model"
    presets = {"model": MODEL_PRESETS}

    model: Annotated[Literal[*MODEL_PRESETS], Knob(column=1, in_words="{}".format)] = Field(
        "small", description="preset of the sizes below"
    )
    num_layers: Count = Field(description="decoder blocks")
    num_heads: Annotated[Count, Knob(impossible=_heads_do_not_divide_width)] = Field(
        description="attention heads; divides hidden_size"
    )
    hidden_size: Count = Field(description="width of the residual stream")
    vocab_size: Annotated[int, Field(ge=256, le=1_000_000), Knob(unit="tokens")] = Field(
        description="256: raw bytes; more: a trained BPE"
    )
    sequence_length: Annotated[Count, Knob(in_words="{} tokens a sequence".format, unit="tokens")] = Field(
        description="tokens per sample"
    )
    activation: Annotated[Literal["gelu", "gelu_tanh"], Knob(in_words=_name_activation)] = Field(
        "gelu", description="of the MLP: exact GELU, or its tanh form, which published GPT-2 weights are for"
    )
