"""The family of the transformer, and its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Part, needs_one_of


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a transformer has by its family, as far as names, shapes and counts go; its formulas are in each twin's `families`."""

    title: str
    has_biases: bool  # of linear layers and norms
    learns_positions: bool  # in an embedding of their own; else queries and keys are rotated by them
    is_gated: bool  # the MLP has a third matrix, whose output is a factor
    can_share_keys: bool  # several query heads may attend to the same keys and values
    can_be_untied: bool  # the output projection may be a matrix of its own
    mlp_ratio: tuple[int, int]  # of the MLP's width to the residual stream's, rounded up to MLP_MULTIPLE
    norm_epsilon: float = 1e-5  # beside the variance, or the mean square
    # Norms are of sums: of the embeddings', and of each half of a block with what it was given. Else they come before each half, and
    # one comes last.
    norms_sums: bool = False
    # Its models show every position all others, and learn hidden tokens, unless told otherwise: a point's objective, a folder's config.
    is_bidirectional: bool = False
    has_segments: bool = False  # an embedding of their own tells the two texts of a pair apart
    has_heads: bool = False  # a layer and a norm before the logits, which have a bias, and a pooler before a classifier


MLP_MULTIPLE = 32
FAMILIES = {
    # Radford et al., 2019
    "gpt2": Family(
        title="GPT-2",
        has_biases=True,
        learns_positions=True,
        is_gated=False,
        can_share_keys=False,
        can_be_untied=False,
        mlp_ratio=(4, 1),
    ),
    # Touvron et al., arXiv:2302.13971; grouped-query attention as of Llama 2, arXiv:2307.09288
    "llama": Family(
        title="Llama",
        has_biases=False,
        learns_positions=False,
        is_gated=True,
        can_share_keys=True,
        can_be_untied=True,
        mlp_ratio=(8, 3),  # a gated MLP has three matrices: as many values as two of 4 W (arXiv:2002.05202, section 3)
    ),
    # Devlin et al., arXiv:1810.04805; what the paper leaves open is that of github.com/google-research/bert
    "bert": Family(
        title="BERT",
        has_biases=True,
        learns_positions=True,
        is_gated=False,
        can_share_keys=False,
        can_be_untied=False,
        mlp_ratio=(4, 1),
        norm_epsilon=1e-12,
        norms_sums=True,
        is_bidirectional=True,
        has_segments=True,
        has_heads=True,
    ),
}
UNGATED = tuple(name for name, family in FAMILIES.items() if not family.is_gated)
ROTATING = tuple(name for name, family in FAMILIES.items() if not family.learns_positions)

MODEL_PRESETS: dict[str, Mapping[str, Any]] = {
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
    "llama-tiny": {
        "family": "llama",
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
        "hidden_size": 32,
        "mlp_size": 96,
        "vocab_size": 256,
        "sequence_length": 32,
    },
    "llama-1b": {  # Llama 3.2 1B at a length at which its scaled rotary frequencies do not matter yet
        "family": "llama",
        "num_layers": 16,
        "num_heads": 32,
        "num_kv_heads": 8,
        "hidden_size": 2048,
        "mlp_size": 8192,
        "vocab_size": 128256,
        "sequence_length": 2048,
        "rope_theta": 500_000.0,
    },
    "bert-tiny": {
        "family": "bert",
        "num_layers": 2,
        "num_heads": 2,
        "hidden_size": 32,
        "vocab_size": 256,
        "sequence_length": 32,
    },
    "bert-base": {
        "family": "bert",
        "num_layers": 12,
        "num_heads": 12,
        "hidden_size": 768,
        "vocab_size": 30522,
        "sequence_length": 512,
    },
}
# What a family means by itself.
FAMILY_PRESETS: dict[str, Mapping[str, Any]] = {
    name: {"objective": "masked_lm"} for name, family in FAMILIES.items() if family.is_bidirectional
}

GPT2_PRESETS = tuple(name for name, sizes in MODEL_PRESETS.items() if "family" not in sizes)


def _name_activation(text: str) -> str:
    return {"gelu": "exact GELU", "gelu_tanh": "GELU by its tanh form", "relu": "ReLU"}.get(text, text)


def _heads_do_not_fit(point: AnyPoint) -> str | None:
    if point.hidden_size % point.num_heads:
        return f"hidden_size {point.hidden_size} is not a multiple of num_heads {point.num_heads}"
    if point.family in ROTATING and (size := point.hidden_size // point.num_heads) % 2:
        return f"family {point.family} rotates pairs of a head's values: hidden_size / num_heads is {size}, and must be even"
    return None


def _heads_of_keys_do_not_fit(point: AnyPoint) -> str | None:
    if point.num_heads % point.kv_heads:
        return f"num_heads {point.num_heads} is not a multiple of num_kv_heads {point.kv_heads}"
    if point.kv_heads != point.num_heads and not FAMILIES[point.family].can_share_keys:
        return (
            f"family {point.family} has as many heads of keys as of queries: num_kv_heads is {point.kv_heads}, and must "
            f"be {point.num_heads}"
        )
    return None


def _cannot_be_untied(point: AnyPoint) -> str | None:
    if not point.tied_embeddings and not FAMILIES[point.family].can_be_untied:
        return f"family {point.family} has the token embedding as its output projection: tied_embeddings must be true"
    return None


class ModelPart(Part):
    """A preset of sizes, and the family and sizes, each of which may be set by hand."""

    title = "Model"
    presets = {"model": MODEL_PRESETS, "family": FAMILY_PRESETS}

    model: Annotated[Literal[*MODEL_PRESETS], Knob(column=1, in_words="{}".format)] = Field(
        "small", description="preset of the family and sizes below"
    )
    family: Literal[*FAMILIES] = Field(
        "gpt2",
        description="llama: RMSNorm, rotary positions, SwiGLU, grouped-query attention, no biases; bert: norms of sums, segments, a head before the logits; an encoder unless its objective is causal_lm",
    )
    num_layers: Count = Field(description="blocks of attention and MLP")
    num_heads: Annotated[Count, Knob(impossible=_heads_do_not_fit)] = Field(
        description="attention heads; divides hidden_size"
    )
    num_kv_heads: Annotated[
        Count | None,
        Knob(impossible=_heads_of_keys_do_not_fit, unnamed=lambda point: point.kv_heads == point.num_heads),
    ] = Field(
        None, description="heads of keys and values, each for as many of queries; left out: num_heads; fewer: llama"
    )
    hidden_size: Count = Field(description="width of the residual stream")
    mlp_size: Annotated[
        Count | None, Knob(unnamed=lambda point: point.mlp_width == default_mlp_width(point.family, point.hidden_size))
    ] = Field(None, description="width of the MLP; left out: 4 hidden_size, of llama 8/3 of it, up to a multiple of 32")
    vocab_size: Annotated[int, Field(ge=256, le=1_000_000), Knob(unit="tokens")] = Field(
        description="256: raw bytes; more: a trained BPE"
    )
    sequence_length: Annotated[Count, Knob(in_words="{} tokens a sequence".format, unit="tokens")] = Field(
        description="tokens per sample"
    )
    tied_embeddings: Annotated[bool, Knob(impossible=_cannot_be_untied)] = Field(
        True, description="the token embedding is the output projection; false: llama"
    )
    rope_theta: Annotated[float, Field(gt=1.0, le=1e12), Knob(needs=(needs_one_of("family", ROTATING),))] = Field(
        10_000.0, description="of rotary positions: the slowest pair of values turns once in about 2 pi theta tokens"
    )

    activation: Annotated[
        Literal["gelu", "gelu_tanh", "relu"], Knob(in_words=_name_activation, needs=(needs_one_of("family", UNGATED),))
    ] = Field(
        "gelu", description="of the MLP: exact GELU, its tanh form, which published GPT-2 weights are for, or ReLU"
    )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def mlp_width(self) -> int:
        """Width of the MLP."""
        return self.mlp_size or default_mlp_width(self.family, self.hidden_size)


def default_mlp_width(family: str, hidden_size: int) -> int:
    """Width of the MLP of a family where the point does not say it; GPT-2's is exactly 4 hidden_size."""
    numerator, denominator = FAMILIES[family].mlp_ratio
    if denominator == 1:
        return numerator * hidden_size
    return -(-numerator * hidden_size // (denominator * MLP_MULTIPLE)) * MLP_MULTIPLE
