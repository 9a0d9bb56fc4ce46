"""Attention in PyTorch: its fused kernel, which keeps no probabilities, or as in the textbook.

Shapes: B micro-batch, H heads, T sequence length, Q head size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from hvbench.spec.point import Point
from hvbench.training.dropout import Seed


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, point: Point, rate: float, seed: Seed | None
) -> torch.Tensor:
    """softmax(q kᵀ / √Q) v: queries, keys and values [B, H, T, Q] -> [B, H, T, Q]; the point has the algorithm and the mask.

    Probabilities are dropped at `rate`. `seed` is for TensorFlow: PyTorch draws all masks of a pass from one generator, in order.
    """
    if point.attention == "plain":
        return _plain_attention(q, k, v, is_causal=point.is_causal, rate=rate)
    return F.scaled_dot_product_attention(q, k, v, is_causal=point.is_causal, dropout_p=rate)


def _plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool, rate: float
) -> torch.Tensor:
    T, Q = q.shape[2:]
    scores = q @ k.transpose(2, 3)  # [B, H, T, T]
    scores = (scores.float() if scores.element_size() < 4 else scores) / math.sqrt(Q)
    if is_causal:
        scores = scores + torch.full((T, T), -math.inf, dtype=scores.dtype, device=scores.device).triu(1)
    probabilities = F.softmax(scores, dim=-1).to(q.dtype)
    return F.dropout(probabilities, rate) @ v
