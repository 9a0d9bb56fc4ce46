"""BERT in numpy, forward and backward: embeddings of segments and their norm, a head before the logits (arXiv:1810.04805).

Shapes: B micro-batch, T sequence, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.families import gpt2
from hvbench.frameworks.numpy.layers import Layers, _Backward, _first_places, _last_places, _rows

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
    ends = inputs == layers.separator if layers.separator is not None else np.zeros(inputs.shape, bool)
    before = np.cumsum(ends, axis=1) - ends
    before -= np.take_along_axis(before, starts, axis=1) if starts is not None else 0
    numbers = (before > 0).astype(np.int64)  # 1 behind the first [SEP]
    x, embed_backward = gpt2.embed(layers, inputs, starts)
    normal, norm_backward = norm(layers, x + segments[numbers], "embedding_norm")

    def backward(d: np.ndarray, gradients: Arrays) -> None:
        d = norm_backward(d, gradients)
        gradients["segment_embedding"] = np.stack([d[numbers == number].sum(axis=0) for number in range(len(segments))])
        embed_backward(d, gradients)

    return normal, backward


def finish(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
    """The norm of the activation of a linear layer; tags are projected without it."""
    if layers.point.is_tagger:
        return x, lambda d, gradients: d
    y, linear_backward = layers.linear(x, "head")
    active, active_backward = gpt2.activate(layers, y)
    normal, norm_backward = norm(layers, active, "head_norm")

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        return linear_backward(active_backward(norm_backward(d, gradients)), gradients)

    return normal, backward


def pool(
    layers: Layers, x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None
) -> tuple[np.ndarray, _Backward]:
    """tanh of a linear layer of the first position, or of the last one that a causal mask lets see all (samples, W)."""
    read = _last_places(x, starts, places) if layers.point.is_causal else _first_places(x, places)
    y, linear_backward = layers.linear(_rows(x)[read], "pooler")
    pooled = np.tanh(y)

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        whole = np.zeros_like(x)
        np.add.at(_rows(whole), read, linear_backward(d * (1 - np.square(pooled)), gradients))
        return whole

    return pooled, backward
