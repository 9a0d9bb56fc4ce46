"""BERT in numpy, forward and backward: embeddings of segments and their norm, a head before the logits (arXiv:1810.04805).

Shapes: B micro-batch, T sequence, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.families import gpt2
from hvbench.frameworks.numpy.layers import Layers, _Backward, _rows

from hvbench.frameworks.contract import Arrays

# As GPT-2 has them.
rotations = gpt2.rotations
norm = gpt2.norm
split_heads = gpt2.split_heads
mlp = gpt2.mlp


def embed(
    layers: Layers, inputs: np.ndarray, starts: np.ndarray | None
) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
    """Tokens (B, T) -> (B, T, W); its backward pass adds to the gradient of a token embedding that has one already."""
    segments = layers.parameters["segment_embedding"]
    x, embed_backward = gpt2.embed(layers, inputs, starts)
    normal, norm_backward = norm(layers, x + segments[0], "embedding_norm")

    def backward(d: np.ndarray, gradients: Arrays) -> None:
        d = norm_backward(d, gradients)
        gradients["segment_embedding"] = np.zeros_like(segments)
        gradients["segment_embedding"][0] = _rows(d).sum(axis=0)
        embed_backward(d, gradients)

    return normal, backward


def finish(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
    """The norm of the activation of a linear layer."""
    y, linear_backward = layers.linear(x, "head")
    active, active_backward = gpt2.activate(layers, y)
    normal, norm_backward = norm(layers, active, "head_norm")

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        return linear_backward(active_backward(norm_backward(d, gradients)), gradients)

    return normal, backward


def pool(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
    """numpy has no classifier."""
    raise ValueError("numpy predicts tokens only")
