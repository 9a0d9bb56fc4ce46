"""Attention as in the textbook, with its gradient.

Shapes: B micro-batch, H heads, T sequence, Q head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hvbench.spec.point import Point
from hvbench.training.dropout import Seed

_Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def visible(starts: np.ndarray, *, point: Point, dtype: np.dtype) -> np.ndarray:
    """0 where a position sees another one of its document, which begins at `starts` (B, T), else -inf: (B, 1, T, P + T); all see prefixes."""
    sees = starts[:, :, None] == starts[:, None, :]
    sees = np.tril(sees) if point.is_causal else sees
    mask = np.where(sees, 0, -np.inf).astype(dtype)[:, None]
    return np.pad(mask, ((0, 0), (0, 0), (0, 0), (point.num_prefixes, 0)))


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    point: Point,
    rate: float,
    seed: Seed | None,
    documents: np.ndarray | None = None,
) -> tuple[np.ndarray, Callable[[np.ndarray], _Gradients]]:
    """softmax(q kᵀ / √Q) v, under the mask of documents, or a causal one where the point has it: (B, H, T, Q) each -> (B, H, T, Q), and its gradient -> those of q, k and v."""
    T, Q = q.shape[2:]
    before = k.shape[2] - T  # prefixes, which all positions see
    scale = 1 / math.sqrt(Q)
    scores = q @ k.swapaxes(-1, -2) * scale  # (B, H, T, P + T)
    if documents is not None:
        scores += documents
    elif point.is_causal:
        scores += np.triu(np.full((T, before + T), -np.inf, q.dtype), k=1 + before)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = scores / scores.sum(axis=-1, keepdims=True)

    def backward(d: np.ndarray) -> _Gradients:
        d_p = d @ v.swapaxes(-1, -2)
        d_scores = probabilities * (d_p - (d_p * probabilities).sum(axis=-1, keepdims=True)) * scale
        return d_scores @ k, d_scores.swapaxes(-1, -2) @ q, probabilities.swapaxes(-1, -2) @ d

    return probabilities @ v, backward
