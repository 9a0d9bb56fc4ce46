"""Llama in PyTorch: RMS norms, rotary positions, grouped-query attention, SwiGLU, no biases (Touvron et al., arXiv:2302.13971).

Shapes: B micro-batch, T sequence length, H heads of queries, K of keys and values, Q head size, W = H·Q hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hvbench.frameworks.pytorch.layers import Layers, mean_of_tokens


def embed(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    """Tokens [B, T] -> their embeddings [B, T, W]."""
    return F.embedding(inputs, layers.parameters["token_embedding"])


def rotations(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor | None:
    """Cosines and sines of the angles by which positions turn pairs of values: [2, T, Q/2], or [2, B, 1, T, Q/2] with documents."""
    T, table = inputs.shape[1], layers.constants["rotary"]
    if starts is None:
        return table[:, :T]
    return table[:, torch.arange(T, device=inputs.device) - starts][:, :, None]


def norm(layers: Layers, x: torch.Tensor, name: str) -> torch.Tensor:
    """RMS norm of x [B, T, W] over W (Zhang & Sennrich, arXiv:1910.07467)."""
    return F.rms_norm(x, (x.shape[-1],), layers.parameters[f"{name}.gain"], eps=layers.traits.norm_epsilon)


def finish(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """The last norm [B, T, W]."""
    return norm(layers, x, "final_norm")


def pool(layers: Layers, x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """The mean of the last norm over positions that are no padding: [B, T, W] -> [samples, W]; the gain comes after it, as in `gpt2.pool`."""
    normal = F.rms_norm(x, (x.shape[-1],), eps=layers.traits.norm_epsilon)
    return mean_of_tokens(normal, starts, places) * layers.parameters["final_norm.gain"]


def split_heads(
    layers: Layers, qkv: torch.Tensor, rotation: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of H heads, keys and values of K, one behind the other [B, T, (H + 2 K) Q] -> each [B, H, T, Q].

    Queries and keys are turned by their positions in the parameters' dtype. H / K neighbouring heads share keys and values
    (Ainslie et al., arXiv:2305.13245).
    """
    B, T, _ = qkv.shape
    H, K = layers.point.num_heads, layers.point.kv_heads
    parts = qkv.view(B, T, H + 2 * K, -1).transpose(1, 2).split([H, K, K], dim=1)
    q, k = (layers.round(_rotate(layers.widen(part), rotation)) for part in parts[:2])
    k, v = (_repeat(part, H // K) for part in (k, parts[2]))
    return q, k, v


def mlp(layers: Layers, x: torch.Tensor, name: str) -> torch.Tensor:
    """down(SiLU(gate(x)) up(x)) (Shazeer, arXiv:2002.05202), the factors in the parameters' dtype."""
    x = layers.round(x)  # once for both
    gate, up = (layers.widen(layers.linear(x, f"{name}.{part}")) for part in ("gate", "up"))
    return layers.linear(F.silu(gate) * up, f"{name}.down")


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """x [B, H, T, Q] with its pairs turned (Su et al., arXiv:2104.09864): value i of the first half goes with value i of the second."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def _repeat(x: torch.Tensor, times: int) -> torch.Tensor:
    """x [B, K, T, Q] -> [B, K · times, T, Q]: each head so often, one behind the other."""
    B, K, T, Q = x.shape
    return x if times == 1 else x[:, :, None].expand(B, K, times, T, Q).reshape(B, K * times, T, Q)
