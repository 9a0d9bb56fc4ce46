"""Families of models that transformers knows and the twins train: config.json's keys, the tensors' names and shapes. Pure.

A family is one entry of FAMILIES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.adaptation import without_adaptation
from hvbench.training.weights import SEGMENTS, Shape, parameter_shapes

Config = Mapping[str, Any]
BLOCK = re.compile(r"block(\d+)\.(.+)")
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
RESOLVED = {"num_kv_heads": "kv_heads", "mlp_size": "mlp_width"}  # fields whose value may follow from others


@dataclass(frozen=True, kw_only=True)
class Family:
    """What of a folder belongs to which field and parameter of a point."""

    model_type: str  # in config.json
    architectures: Mapping[str, str]  # objective -> transformers' class of such a model
    architecture_of_pairs: str = ""  # that of one that also judges pairs of texts
    causal_key: str = ""  # in config.json, whether positions see only what came before; without one they do
    defaults: Config  # key of config.json -> what transformers takes where it is left out
    complete: Callable[[Config], dict[str, Any]]  # what follows from other keys where a config leaves it open
    keys: Mapping[str, str]  # field of a point -> the key that says the same
    # Key -> its words -> the point's value, of keys that have others; of two words for a value the first is written.
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    others: Callable[[Config], Iterator[str]]  # what of a config the twins do not compute, in words
    written: Callable[[Point], dict[str, Any]]  # config.json of a point, without its `keys`
    prefix: str  # of the tensors of a model with a head, but the head's own; without one they have none
    tensors: Mapping[
        str, str | tuple[str, ...]
    ]  # parameter -> tensor, or several side by side; {} is the block's number
    is_transposed: bool = False  # linear layers are stored as [out, in], hvbench's are [in, out]
    head: str = "lm_head.weight"  # the output projection; where it is tied, a file may hold it once more
    heads: str = r"lm_head\..+"  # pattern of the tensors of all heads
    buffers: str = "(?!)"  # pattern of tensors that hold nothing trained, or what another one holds
    unread: str = "(?!)"  # pattern of tensors that models of other objectives have
    optional: str = "(?!)"  # pattern of parameters that start from the seed where a folder lacks them
    renamed: tuple[tuple[str, str], ...] = ()  # ends of names that earlier files have, and those of today

    def own_name(self, tensor: str) -> str:
        """A tensor's name in a file -> that in `tensors`."""
        name = tensor.removeprefix(self.prefix)
        for old, new in self.renamed:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name

    def stored(self, point: Point) -> dict[str, list[tuple[str, Shape]]]:
        """Parameter -> its tensors and their shapes in a file, of all that a folder holds: a classifier's projection, and what an adaptation adds, is not among them."""
        found = {}
        for name, shape in parameter_shapes(without_adaptation(point)).items():
            if not name.startswith("classifier."):
                tensors = self._tensors_of(name)
                sizes = _parts_of_attention(point) if len(tensors) > 1 else shape[-1:]
                parts = [(*shape[:-1], size) for size in sizes]
                found[name] = list(zip(tensors, (self._turned(name, part) for part in parts), strict=True))
        return found

    def join(self, name: str, values: list[np.ndarray]) -> np.ndarray:
        """A parameter from its tensors."""
        parts = [value.T if self._is_turned(name) else value for value in values]
        return np.ascontiguousarray(np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0])

    def split(self, name: str, value: np.ndarray, point: Point) -> dict[str, np.ndarray]:
        """The tensors of a parameter, by their names in a file."""
        tensors = self._tensors_of(name)
        sizes = _parts_of_attention(point) if len(tensors) > 1 else value.shape[-1:]
        parts = np.split(value, np.cumsum(sizes)[:-1], axis=-1)
        turned = [part.T if self._is_turned(name) else part for part in parts]
        names = [tensor if re.fullmatch(self.heads, tensor) else f"{self.prefix}{tensor}" for tensor in tensors]
        return {tensor: np.ascontiguousarray(part) for tensor, part in zip(names, turned, strict=True)}

    def _tensors_of(self, name: str) -> tuple[str, ...]:
        match = BLOCK.fullmatch(name)
        found = self.tensors[f"block.{match[2]}" if match else name]
        several = (found,) if isinstance(found, str) else found
        return tuple(each.format(match[1]) for each in several) if match else several

    def _is_turned(self, name: str) -> bool:
        return self.is_transposed and name.endswith(".weight")

    def _turned(self, name: str, shape: Shape) -> Shape:
        return shape[::-1] if self._is_turned(name) else shape


def family_of(point: Point) -> Family:
    """The family of a point's model."""
    return FAMILIES[point.family]


def value_of(point: Point, field: str) -> Any:
    """What a field of a point means, where it is left open, too."""
    return getattr(point, RESOLVED.get(field, field))


def _parts_of_attention(point: Point) -> tuple[int, int, int]:
    """Columns of queries, keys and values."""
    size = point.hidden_size // point.num_heads
    return point.hidden_size, point.kv_heads * size, point.kv_heads * size


def _find_others(config: Config, computed: Config) -> Iterator[str]:
    for key, value in computed.items():
        if config[key] != value:
            yield f"{key} {shorten(config[key])} (hvbench: {shorten(value)})"


def _complete_gpt2(config: Config) -> dict[str, Any]:
    width = config["n_embd"]
    is_open = config["n_inner"] is None and type(width) is int
    return {**config, "n_inner": 4 * width if is_open else config["n_inner"]}


def _find_others_of_gpt2(config: Config) -> Iterator[str]:
    computed = {
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    return _find_others(config, computed)


def _write_gpt2(point: Point) -> dict[str, Any]:
    rates = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    return {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, **dict.fromkeys(rates, point.dropout)}


GPT2 = Family(
    model_type="gpt2",
    architectures={"causal_lm": "GPT2LMHeadModel"},
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
    complete=_complete_gpt2,
    keys={
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "hidden_size": "n_embd",
        "mlp_size": "n_inner",
        "vocab_size": "vocab_size",
        "sequence_length": "n_positions",
        "activation": "activation_function",
    },
    words={"activation_function": ACTIVATIONS},
    others=_find_others_of_gpt2,
    written=_write_gpt2,
    prefix="transformer.",
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
)


def _complete_llama(config: Config) -> dict[str, Any]:
    rope = config["rope_parameters"] or config["rope_scaling"] or {}
    rope = rope if isinstance(rope, Mapping) else {"rope_type": rope}
    theta, heads = rope.get("rope_theta", config["rope_theta"]), config["num_key_value_heads"]
    return {
        **config,
        "num_key_value_heads": config["num_attention_heads"] if heads is None else heads,
        "rope_theta": float(theta) if type(theta) is int else theta,
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
    }


def _find_others_of_llama(config: Config) -> Iterator[str]:
    computed = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_type": "default",
    }
    yield from _find_others(config, computed)
    if config["head_dim"] not in (None, config["hidden_size"] // config["num_attention_heads"]):
        yield f"head_dim {shorten(config['head_dim'])} (hvbench: hidden_size / num_attention_heads)"


def _write_llama(point: Point) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": point.rope_theta}
    return {"hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_parameters": rope, "attention_dropout": point.dropout}


LLAMA = Family(
    model_type="llama",
    architectures={"causal_lm": "LlamaForCausalLM"},
    defaults={
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_parameters": None,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    },
    complete=_complete_llama,
    keys={
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "num_kv_heads": "num_key_value_heads",
        "hidden_size": "hidden_size",
        "mlp_size": "intermediate_size",
        "vocab_size": "vocab_size",
        "sequence_length": "max_position_embeddings",
        "tied_embeddings": "tie_word_embeddings",
        "rope_theta": "rope_theta",
    },
    others=_find_others_of_llama,
    written=_write_llama,
    prefix="model.",
    tensors={
        "token_embedding": "embed_tokens.weight",
        "output_embedding": "lm_head.weight",
        "block.norm1.gain": "layers.{}.input_layernorm.weight",
        "block.attention.qkv.weight": (
            "layers.{}.self_attn.q_proj.weight",
            "layers.{}.self_attn.k_proj.weight",
            "layers.{}.self_attn.v_proj.weight",
        ),
        "block.attention.out.weight": "layers.{}.self_attn.o_proj.weight",
        "block.norm2.gain": "layers.{}.post_attention_layernorm.weight",
        "block.mlp.gate.weight": "layers.{}.mlp.gate_proj.weight",
        "block.mlp.up.weight": "layers.{}.mlp.up_proj.weight",
        "block.mlp.down.weight": "layers.{}.mlp.down_proj.weight",
        "final_norm.gain": "norm.weight",
    },
    is_transposed=True,
    buffers=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",  # the rotary frequencies
)


def _find_others_of_bert(config: Config) -> Iterator[str]:
    computed = {
        "layer_norm_eps": 1e-12,
        "type_vocab_size": SEGMENTS,
        "position_embedding_type": "absolute",
        "add_cross_attention": False,
    }
    return _find_others(config, computed)


def _write_bert(point: Point) -> dict[str, Any]:
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    classes = {str(number): f"LABEL_{number}" for number in range(point.num_classes if point.is_classifier else 0)}
    return {
        "layer_norm_eps": 1e-12,
        "type_vocab_size": SEGMENTS,
        "tie_word_embeddings": True,
        "is_decoder": point.is_causal,
        **dict.fromkeys(rates, point.dropout),
        **({"id2label": classes} if classes else {}),
    }


def _both(parameter: str, tensor: str, *, ends: tuple[str, str] = ("weight", "bias")) -> dict[str, str]:
    """A layer's two parameters -> their tensors."""
    return {f"{parameter}.{end}": f"{tensor}.{stored}" for end, stored in zip(ends, ("weight", "bias"), strict=True)}


BERT = Family(
    model_type="bert",
    architectures={
        "masked_lm": "BertForMaskedLM",
        "classification": "BertForSequenceClassification",
        "causal_lm": "BertLMHeadModel",
    },
    architecture_of_pairs="BertForPreTraining",
    causal_key="is_decoder",
    defaults={
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    },
    complete=dict,
    keys={
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "hidden_size": "hidden_size",
        "mlp_size": "intermediate_size",
        "vocab_size": "vocab_size",
        "sequence_length": "max_position_embeddings",
        "activation": "hidden_act",
    },
    words={"hidden_act": ACTIVATIONS},
    others=_find_others_of_bert,
    written=_write_bert,
    prefix="bert.",
    tensors={
        "token_embedding": "embeddings.word_embeddings.weight",
        "position_embedding": "embeddings.position_embeddings.weight",
        "segment_embedding": "embeddings.token_type_embeddings.weight",
        **_both("embedding_norm", "embeddings.LayerNorm", ends=("gain", "bias")),
        **{
            f"block.attention.qkv.{end}": tuple(
                f"encoder.layer.{{}}.attention.self.{part}.{end}" for part in ("query", "key", "value")
            )
            for end in ("weight", "bias")
        },
        **_both("block.attention.out", "encoder.layer.{}.attention.output.dense"),
        **_both("block.norm1", "encoder.layer.{}.attention.output.LayerNorm", ends=("gain", "bias")),
        **_both("block.mlp.up", "encoder.layer.{}.intermediate.dense"),
        **_both("block.mlp.down", "encoder.layer.{}.output.dense"),
        **_both("block.norm2", "encoder.layer.{}.output.LayerNorm", ends=("gain", "bias")),
        **_both("head", "cls.predictions.transform.dense"),
        **_both("head_norm", "cls.predictions.transform.LayerNorm", ends=("gain", "bias")),
        "output.bias": "cls.predictions.bias",
        **_both("pooler", "pooler.dense"),
        **_both("classifier", "classifier"),
        **_both("next_sentence", "cls.seq_relationship"),
    },
    is_transposed=True,
    head="cls.predictions.decoder.weight",
    heads=r"(cls|classifier)\..+",
    buffers=r"embeddings\.position_ids|cls\.predictions\.decoder\.bias",
    unread=r"(cls|classifier|pooler)\..+",
    optional=r"(pooler|next_sentence)\..+",
    renamed=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
)
FAMILIES = {family.model_type: family for family in (GPT2, LLAMA, BERT)}
