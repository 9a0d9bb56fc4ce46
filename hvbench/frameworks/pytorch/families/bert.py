"""BERT in PyTorch: norms of sums, embeddings of segments, a head before the logits, a pooler before a classifier (Devlin et al., arXiv:1810.04805).

What the paper leaves open is as in github.com/google-research/bert (`modeling.py`, `run_pretraining.py`).

Shapes: B micro-batch, T sequence length, W hidden size.
"""

from __future__ import annotations

import torch

from hvbench.frameworks.pytorch.families import gpt2
from hvbench.frameworks.pytorch.layers import Layers, last_token

# As GPT-2 has them.
rotations = gpt2.rotations
norm = gpt2.norm
split_heads = gpt2.split_heads
mlp = gpt2.mlp


def embed(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    """Tokens [B, T] -> the norm of their embeddings plus those of their positions and segments [B, T, W]."""
    return norm(layers, gpt2.embed(layers, inputs, starts) + _segments(layers, inputs, starts), "embedding_norm")


def finish(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """The norm of the activation of a linear layer [B, T, W]: the head of a language model; tags are projected without it."""
    if layers.point.is_tagger:
        return x
    return norm(layers, gpt2.activate(layers, layers.widen(layers.linear(x, "head"))), "head_norm")


def pool(layers: Layers, x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """tanh of a linear layer of one position: [B, T, W] -> [B, W].

    It is the first, which holds [CLS]; behind a causal mask that one sees nothing else, and it is the last one that is no padding.
    """
    if layers.point.is_causal:
        position = last_token(x, starts, places)
    else:
        position = x[:, 0] if places is None else x.flatten(end_dim=1)[places]
    return torch.tanh(layers.widen(layers.linear(position, "pooler")))


def _segments(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    """Tokens [B, T] -> the embeddings of their segments [B, T, W]; [W], the first's, where samples have no [SEP].

    The second segment begins behind the first [SEP] of a document.
    """
    embedding = layers.parameters["segment_embedding"]
    if layers.separator is None:
        return embedding[0]
    ends = (inputs == layers.separator).int()
    before = ends.cumsum(dim=1) - ends
    if starts is not None:
        before = before - before.gather(1, starts)
    return torch.where((before > 0)[:, :, None], embedding[1], embedding[0])
