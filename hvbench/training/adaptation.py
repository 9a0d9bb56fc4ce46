"""What an adaptation adds to a model, and which parameters train. Pure.

    lora         W + alpha / r A B for chosen linear layers (Hu et al., arXiv:2106.09685, section 4.1); A is [in, r], B [r, out].
                 Queries, keys and values are one matrix and have one A, as peft has it of GPT-2's `c_attn`
    adapter      x + up(GELU(down(x))) behind each attention and each MLP (Houlsby et al., arXiv:1902.00751, section 2.1), in front of
                 the residual sum; the norms train as well, as in that paper
    prefix       keys and values that train, in front of those of each attention's text and visible to all of it (Li & Liang,
                 arXiv:2101.00190, section 4.2), as they are: without that paper's MLP in front of them. They have no position: Llama's are
                 not rotated, and those of the text begin at 0 as ever
    bias         BitFit (Ben Zaken et al., arXiv:2106.10199): all biases, those of norms included
    head         a classifier's projection, or an output projection that is not the token embedding, or what BERT has in front of the logits
    last_layers  the last blocks, the final norm, and such a head

A classifier's projection, that of pairs of texts, and BERT's pooler in front of them train with all of them: they start from the seed, unless a folder has them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hvbench.spec.adaptation import LORA_TARGETS, AdaptationPart
from hvbench.spec.point import Point

Shape = tuple[int, ...]

ADAPTER_STD = 1e-2  # of a bottleneck's weights: near the identity (arXiv:1902.00751, section 3.6)
HEAD = (
    "output_embedding",
    "output",
    "head",
    "head_norm",
)  # what reads the last block, where it is no embedding of tokens
NORMS = ("norm", "embedding_norm", "final_norm", "head_norm")
LORA_A, LORA_B = "lora_a.weight", "lora_b.weight"


def added_shapes(point: Point, layers: Mapping[str, tuple[int, int]]) -> dict[str, Shape]:
    """Name -> shape of what the adaptation adds to the parameters; `layers`: `hvbench.training.weights.block_layers`."""
    added: dict[str, Shape] = {}
    if point.adaptation == "lora":
        for name in LORA_TARGETS[point.lora_targets] or layers:
            inputs, outputs = layers[name]
            added |= {f"{name}.{LORA_A}": (inputs, point.lora_rank), f"{name}.{LORA_B}": (point.lora_rank, outputs)}
    if point.adaptation == "adapter":
        width, size = point.hidden_size, point.adapter_size
        for name in ("attention.adapter", "mlp.adapter"):
            added |= {f"{name}.down.weight": (width, size), f"{name}.down.bias": (size,)}
            added |= {f"{name}.up.weight": (size, width), f"{name}.up.bias": (width,)}
    if point.num_prefixes:
        shape = (point.num_prefixes, point.kv_heads * point.hidden_size // point.num_heads)
        added |= {f"attention.prefix.{part}": shape for part in ("keys", "values")}
    return {f"block{layer}.{name}": shape for layer in range(point.num_layers) for name, shape in added.items()}


def added_std(point: Point, name: str) -> float | None:
    """Standard deviation of the initial values of an added weight; None: `name` is none.

    LoRA's B begins at 0, and A at 1 / r, which is peft's `init_lora_weights="gaussian"`: the model begins as it was.
    """
    if name.endswith(LORA_A):
        return 1 / point.lora_rank
    if name.endswith(LORA_B):
        return 0.0
    return ADAPTER_STD if ".adapter." in name else None


def merge_low_rank(weights: Mapping[str, np.ndarray], point: Point) -> dict[str, np.ndarray]:
    """The weights without LoRA's matrices: W + alpha / r A B in the place of W, added up in float64."""
    scale = point.lora_alpha / point.lora_rank
    merged = {name: value for name, value in weights.items() if not name.endswith((LORA_A, LORA_B))}
    for name in (name.removesuffix(LORA_A) for name in weights if name.endswith(LORA_A)):
        product = weights[name + LORA_A].astype(np.float64) @ weights[name + LORA_B]
        merged[f"{name}weight"] = (merged[f"{name}weight"] + scale * product).astype(merged[f"{name}weight"].dtype)
    return merged


def without_adaptation(point: Point) -> Point:
    """The point whose model has nothing added to it."""
    return point.model_copy(update={"adaptation": AdaptationPart.model_fields["adaptation"].default})


def trained_blocks(point: Point) -> int:
    """The number of blocks, from the last, in which anything trains; in each of them the same."""
    return {"head": 0, "last_layers": point.trained_layers}.get(point.adaptation, point.num_layers)


def is_trained(point: Point, name: str) -> bool:
    """Whether a parameter takes gradients and updates."""
    if name.startswith(("classifier.", "pooler.", "next_sentence.")) or point.adaptation == "full":
        return True
    block, _, rest = name.partition(".")
    is_of_block = block.startswith("block")
    if point.adaptation in ("head", "last_layers"):
        if not is_of_block:
            return block in HEAD or (block == "final_norm" and point.adaptation == "last_layers")
        return int(block.removeprefix("block")) >= point.num_layers - trained_blocks(point)
    if point.adaptation == "bias":
        return name.endswith(".bias")
    if point.adaptation == "adapter":
        return ".adapter." in name or (rest if is_of_block else block).startswith(NORMS)
    return ".prefix." in name or name.endswith((LORA_A, LORA_B))
