"""Attention in PyTorch: its fused kernel, which keeps no probabilities, or as in the textbook.

Shapes: B micro-batch, H heads, T sequence length, Q head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from hvbench.spec.point import Point
from hvbench.training.dropout import Seed

_SHORT = 256  # positions; docs/measurements.md has other lengths
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def visible(starts: torch.Tensor, *, point: Point, dtype: torch.dtype) -> torch.Tensor:
    """What `attention` takes of documents that begin at `starts` [B, T], once for all layers: 0 where a position sees another, else
    -inf, [B, 1, T, P + T], in the dtype of queries; the P prefixes of an adaptation are seen by all.
    """
    sees = starts[:, :, None] == starts[:, None, :]
    if point.is_causal:
        sees = sees.tril()
    mask = torch.zeros(sees.shape, dtype=dtype, device=starts.device).masked_fill(~sees, -math.inf)[:, None]
    return F.pad(mask, (point.num_prefixes, 0)) if point.num_prefixes else mask


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    point: Point,
    rate: float,
    seed: Seed | None,
    documents: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / √Q) v: queries, keys and values [B, H, T, Q] -> [B, H, T, Q]; the point has the algorithm and the mask.

    Keys and values may have more positions in front, the prefixes of an adaptation, where `documents` says who sees them.

    `documents` is `visible` of them; None: a row is one. Probabilities are dropped at `rate`. `seed` is for TensorFlow: PyTorch
    draws all masks of a pass from one generator, in order.
    """
    if point.attention == "plain":
        return _plain_attention(q, k, v, is_causal=point.is_causal, rate=rate, documents=documents)
    is_short = q.shape[2] <= _SHORT and q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if is_short and documents is None and not rate and point.compile == "none":
        return _ShortAttention.apply(q, k, v, point.is_causal)
    is_causal = point.is_causal and documents is None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=documents, is_causal=is_causal, dropout_p=rate)


class _ShortAttention(torch.autograd.Function):
    """The fused kernel in bfloat16, its gradient by the one for float32: of short sequences that is up to five times as fast.

    Not in float16: there 20 updates differ from TensorFlow's, which rounds in between, by as much as tolerances allow.

    Operands are those of bfloat16; products, sums and probabilities in between are rounded later, to the gradients' 16 bits.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> torch.Tensor:
        result, log_sums = _FUSED(q, k, v, 0.0, is_causal)
        ctx.is_causal = is_causal
        ctx.save_for_backward(q, k, v, result, log_sums)
        return result

    @staticmethod
    def backward(ctx: Any, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        *operands, log_sums = ctx.saved_tensors
        wide = [x.float() for x in (d, *operands)]
        gradients = _FUSED_BACKWARD(*wide, log_sums, 0.0, ctx.is_causal)
        d_q, d_k, d_v = (gradient.to(d.dtype) for gradient in gradients)
        return d_q, d_k, d_v, None


def _plain_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    is_causal: bool,
    rate: float,
    documents: torch.Tensor | None,
) -> torch.Tensor:
    T, Q = q.shape[2:]
    scores = q @ k.transpose(2, 3)  # [B, H, T, T]
    scores = (scores.float() if scores.element_size() < 4 else scores).div_(math.sqrt(Q))
    if documents is not None:
        scores += documents.to(scores.dtype)
    elif is_causal:
        scores += torch.full((T, T), -math.inf, dtype=scores.dtype, device=scores.device).triu(1)
    probabilities = F.softmax(scores, dim=-1).to(q.dtype)
    return F.dropout(probabilities, rate) @ v
