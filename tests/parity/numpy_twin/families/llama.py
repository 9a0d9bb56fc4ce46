"""Llama in numpy, forward and backward: RMS norms, rotary positions, grouped-query attention, SwiGLU, no biases.

Shapes: B micro-batch, T sequence, H heads of queries, K of keys and values, Q head size, W = H·Q width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.layers import Layers, _Backward, _rows, _shares, mean_of_tokens

from hvbench.frameworks.contract import Arrays

_Heads = tuple[np.ndarray, np.ndarray, np.ndarray]


def embed(
    layers: Layers, inputs: np.ndarray, starts: np.ndarray | None
) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
    """Tokens (B, T) -> (B, T, W); its backward pass adds to the gradient of a token embedding that has one already."""

    def backward(d: np.ndarray, gradients: Arrays) -> None:
        gradients.setdefault("token_embedding", np.zeros_like(layers.parameters["token_embedding"]))
        np.add.at(gradients["token_embedding"], inputs, d)

    return layers.parameters["token_embedding"][inputs], backward


def rotations(layers: Layers, inputs: np.ndarray, starts: np.ndarray | None) -> np.ndarray | None:
    """Cosines and sines (2, T, Q/2), or (2, B, 1, T, Q/2) of documents that begin at `starts`."""
    table, T = layers.constants["rotary"], inputs.shape[1]
    return table[:, :T] if starts is None else table[:, np.arange(T) - starts][:, :, None]


def norm(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """RMS norm (Zhang & Sennrich, arXiv:1910.07467)."""
    normal, standard_backward = _standard(x, layers.traits.norm_epsilon)
    value, scale_backward = _scale(layers, normal, name)
    return value, lambda d, gradients: standard_backward(scale_backward(d, gradients))


def finish(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
    """The last norm."""
    return norm(layers, x, "final_norm")


def pool(
    layers: Layers, x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None
) -> tuple[np.ndarray, _Backward]:
    """The last norm of the mean over positions that are no padding (samples, W)."""
    normal, standard_backward = _standard(x, layers.traits.norm_epsilon)
    value, scale_backward = _scale(layers, mean_of_tokens(normal, starts, places), "final_norm")
    shares = _shares(x, starts, places)
    return value, lambda d, gradients: standard_backward((shares.T @ scale_backward(d, gradients)).reshape(x.shape))


def split_heads(
    layers: Layers, qkv: np.ndarray, rotation: np.ndarray | None
) -> tuple[_Heads, Callable[..., np.ndarray]]:
    """(B, T, (H + 2 K) Q) -> queries, keys and values (B, H, T, Q); and the function from their gradients to that of `qkv`."""
    B, T, width = qkv.shape
    H, K = layers.point.num_heads, layers.point.kv_heads
    heads = qkv.reshape(B, T, H + 2 * K, -1).transpose(0, 2, 1, 3)
    cosines, sines = rotation
    q, k = (layers.round(_turn(part, cosines, sines)) for part in (heads[:, :H], heads[:, H : H + K]))
    k, v = (np.repeat(part, H // K, axis=1) for part in (k, heads[:, H + K :]))

    def backward(d_q: np.ndarray, d_k: np.ndarray, d_v: np.ndarray) -> np.ndarray:
        d_k, d_v = (d.reshape(B, K, H // K, T, -1).sum(axis=2) for d in (d_k, d_v))
        turned = (_turn(layers.round(d), cosines, -sines) for d in (d_q, d_k))
        return np.concatenate([*turned, d_v], axis=1).transpose(0, 2, 1, 3).reshape(B, T, width)

    return (q, k, v), backward


def mlp(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """down(SiLU(gate(x)) up(x)) (Shazeer, arXiv:2002.05202)."""
    gate, gate_backward = layers.linear(x, f"{name}.gate")
    up, up_backward = layers.linear(x, f"{name}.up")
    sigmoid = 1 / (1 + np.exp(-gate))
    down, down_backward = layers.linear(gate * sigmoid * up, f"{name}.down")

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        d = down_backward(d, gradients)
        d_gate = gate_backward(d * up * sigmoid * (1 + gate * (1 - sigmoid)), gradients)
        return layers.round(d_gate + up_backward(d * gate * sigmoid, gradients))

    return down, backward


def _turn(x: np.ndarray, cosines: np.ndarray, sines: np.ndarray) -> np.ndarray:
    """The two halves of the last dimension as pairs, turned (Su et al., arXiv:2104.09864)."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)


def _standard(x: np.ndarray, epsilon: float) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """x / its root mean square over the last dimension, and from its gradient to that of x."""
    inverse = 1 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + epsilon)
    normal = x * inverse

    def backward(d: np.ndarray) -> np.ndarray:
        return inverse * (d - normal * (d * normal).mean(axis=-1, keepdims=True))

    return normal, backward


def _scale(layers: Layers, normal: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """Times the gain of a norm."""
    gain = layers.parameters[f"{name}.gain"]

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        gradients[f"{name}.gain"] = _rows(d * normal).sum(axis=0)
        return d * gain

    return normal * gain, backward
