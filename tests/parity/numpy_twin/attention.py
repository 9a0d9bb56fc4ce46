"""Attention as in the textbook, with its gradient; rows hold one document each.

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
    """Which positions see each other: numpy has no rows of several documents."""
    raise ValueError("numpy has no mask for documents: give segmentation=windows")


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
    """softmax(q kᵀ / √Q) v, under a causal mask where the point has one: (B, H, T, Q) each -> (B, H, T, Q), and its gradient -> those of q, k and v."""
    T, Q = q.shape[2:]
    before = k.shape[2] - T  # prefixes, which all positions see
    scale = 1 / math.sqrt(Q)
    scores = q @ k.swapaxes(-1, -2) * scale  # (B, H, T, P + T)
    if point.is_causal:
        scores += np.triu(np.full((T, before + T), -np.inf, q.dtype), k=1 + before)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = scores / scores.sum(axis=-1, keepdims=True)

    def backward(d: np.ndarray) -> _Gradients:
        d_p = d @ v.swapaxes(-1, -2)
        d_scores = probabilities * (d_p - (d_p * probabilities).sum(axis=-1, keepdims=True)) * scale
        return d_scores @ k, d_scores.swapaxes(-1, -2) @ q, probabilities.swapaxes(-1, -2) @ d

    return probabilities @ v, backward
