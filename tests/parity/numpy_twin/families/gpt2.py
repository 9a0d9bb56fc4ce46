"""GPT-2 in numpy, forward and backward: layer norms, learned positions, GELU.

Shapes: B micro-batch, T sequence, H heads, Q head size, W = H·Q width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.layers import Layers, _Backward, _rows

from hvbench.frameworks.contract import Arrays

_Heads = tuple[np.ndarray, np.ndarray, np.ndarray]

_erf = np.frompyfunc(math.erf, 1, 1)


def embed(
    layers: Layers, inputs: np.ndarray, starts: np.ndarray | None
) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
    """Tokens (B, T) -> (B, T, W); its backward pass adds to the gradient of a token embedding that has one already."""
    p, T = layers.parameters, inputs.shape[1]

    def backward(d: np.ndarray, gradients: Arrays) -> None:
        np.add.at(gradients["token_embedding"], inputs, d)  # a token may stand there more than once
        gradients["position_embedding"] = np.zeros_like(p["position_embedding"])
        gradients["position_embedding"][:T] = d.sum(axis=0)

    return p["token_embedding"][inputs] + p["position_embedding"][:T], backward


def rotations(layers: Layers, inputs: np.ndarray, starts: np.ndarray | None) -> np.ndarray | None:
    """None: nothing is turned."""
    return None


def norm(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """Layer norm (Ba, Kiros & Hinton, arXiv:1607.06450)."""
    gain = layers.parameters[f"{name}.gain"]
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    normal = centred * inverse

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        gradients[f"{name}.gain"] = _rows(d * normal).sum(axis=0)
        gradients[f"{name}.bias"] = _rows(d).sum(axis=0)
        d = d * gain
        return inverse * (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True))

    return normal * gain + layers.parameters[f"{name}.bias"], backward


def pooled_norm(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """numpy has no classifier."""
    raise ValueError("numpy predicts the next token only")


def split_heads(
    layers: Layers, qkv: np.ndarray, rotation: np.ndarray | None
) -> tuple[_Heads, Callable[..., np.ndarray]]:
    """(B, T, 3 W) -> queries, keys and values (B, H, T, Q); and the function from their gradients to that of `qkv`."""
    B, T, width = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, layers.point.num_heads, -1).transpose(2, 0, 3, 1, 4)

    def backward(*parts: np.ndarray) -> np.ndarray:
        return np.stack(parts).transpose(1, 3, 0, 2, 4).reshape(B, T, width)

    return (q, k, v), backward


def mlp(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """x Φ(x), exact or with Φ by tanh (Hendrycks & Gimpel, arXiv:1606.08415), between two linear layers."""
    up, up_backward = layers.linear(x, f"{name}.up")
    is_exact = layers.point.activation == "gelu"
    bent = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
    curve = _erf(up * math.sqrt(0.5)).astype(np.float64) if is_exact else np.tanh(bent.astype(np.float64))
    probability = (0.5 + 0.5 * curve).astype(layers.parameter_dtype)
    down, down_backward = layers.linear(up * probability, f"{name}.down")

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        if is_exact:
            density = np.exp(np.square(up) * -0.5) * math.sqrt(0.5 / math.pi)
        else:
            slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * np.square(up))
            density = 2 * probability * (1 - probability) * slope
        return up_backward(down_backward(d, gradients) * (probability + up * density), gradients)

    return down, backward
