"""Families of models that transformers knows and the twins train: config.json's keys, the tensors' names and shapes. Pure.

A family is one entry of FAMILIES. GPT-2's linear layers are stored as [in, out], as hvbench's are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hvbench.errors import DataError
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.weights import Shape, parameter_shapes

Config = Mapping[str, Any]
BLOCK = re.compile(r"block(\d+)\.(.+)")


@dataclass(frozen=True, kw_only=True)
class Family:
    """What of a folder belongs to which field and parameter of a point."""

    model_type: str  # in config.json
    architecture: str  # transformers' class of the language model
    defaults: Config  # key of config.json -> what transformers takes where it is left out
    sizes: Mapping[str, str]  # field of a point -> the key that says the same
    activation: str  # the key that names the MLP's activation
    activations: Mapping[str, str]  # its names -> the point's; the first of each is the one that is written
    other_computations: Callable[[Config], Iterator[str]]  # what of a config the twins do not compute, in words
    prefix: str  # of the tensors of a model with a head; without one they have none
    head: str  # the output projection's tensor, which is tied to the token embedding
    tensors: Mapping[str, str]  # parameter -> tensor; {} is the block's number
    buffers: str  # pattern of tensors that hold nothing trained: constants of earlier versions of transformers
    config: Callable[[Point], dict[str, Any]]  # config.json of a point, without what follows from the entries above

    @property
    def positions(self) -> str:
        """The key of the most tokens of a sequence."""
        return self.sizes["sequence_length"]

    def tensor(self, parameter: str) -> str:
        """The name of a parameter's tensor, without the prefix."""
        match = BLOCK.fullmatch(parameter)
        return self.tensors[f"block.{match[2]}"].format(match[1]) if match else self.tensors[parameter]

    def tensor_shapes(self, point: Point) -> dict[str, tuple[str, Shape]]:
        """Parameter -> (its tensor, the shape), of all that a folder holds: a classifier's projection is not among them."""
        shapes = parameter_shapes(point)
        return {
            name: (self.tensor(name), shape) for name, shape in shapes.items() if not name.startswith("classifier.")
        }


def family_of(point: Point) -> Family:
    """The family of a point's model; raises DataError where its folders are neither read nor written."""
    if point.family not in FAMILIES:
        raise DataError(
            f"family {point.family}: folders of Hugging Face are read and written of {', '.join(FAMILIES)} only"
        )
    return FAMILIES[point.family]


def _not_computed_for_gpt2(config: Config) -> Iterator[str]:
    if config["n_inner"] not in (None, 4 * config["n_embd"]):
        yield f"n_inner {shorten(config['n_inner'])} (hvbench: 4 n_embd)"
    fixed = {
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for key, value in fixed.items():
        if config[key] != value:
            yield f"{key} {shorten(config[key])} (hvbench: {shorten(value)})"


def _describe_gpt2(point: Point) -> dict[str, Any]:
    rates = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    inner = None if point.mlp_width == 4 * point.hidden_size else point.mlp_width
    return {"n_inner": inner, "layer_norm_epsilon": 1e-5, **dict.fromkeys(rates, point.dropout)}


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    defaults={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    },
    sizes={
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "hidden_size": "n_embd",
        "vocab_size": "vocab_size",
        "sequence_length": "n_positions",
    },
    activation="activation_function",
    activations={"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
    other_computations=_not_computed_for_gpt2,
    prefix="transformer.",
    head="lm_head.weight",
    tensors={
        "token_embedding": "wte.weight",
        "position_embedding": "wpe.weight",
        "block.norm1.gain": "h.{}.ln_1.weight",
        "block.norm1.bias": "h.{}.ln_1.bias",
        "block.attention.qkv.weight": "h.{}.attn.c_attn.weight",
        "block.attention.qkv.bias": "h.{}.attn.c_attn.bias",
        "block.attention.out.weight": "h.{}.attn.c_proj.weight",
        "block.attention.out.bias": "h.{}.attn.c_proj.bias",
        "block.norm2.gain": "h.{}.ln_2.weight",
        "block.norm2.bias": "h.{}.ln_2.bias",
        "block.mlp.up.weight": "h.{}.mlp.c_fc.weight",
        "block.mlp.up.bias": "h.{}.mlp.c_fc.bias",
        "block.mlp.down.weight": "h.{}.mlp.c_proj.weight",
        "block.mlp.down.bias": "h.{}.mlp.c_proj.bias",
        "final_norm.gain": "ln_f.weight",
        "final_norm.bias": "ln_f.bias",
    },
    buffers=r"h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask, and what it puts in the place of a score
    config=_describe_gpt2,
)
FAMILIES = {family.model_type: family for family in (GPT2,)}
