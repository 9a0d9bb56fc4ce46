"""GPT-2 in numpy, forward and backward: layer norms, learned positions, GELU.

Shapes: B micro-batch, T sequence, H heads, Q head size, W = H·Q width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.layers import Layers, _Backward, _rows, _shares, mean_of_tokens

from hvbench.frameworks.contract import Arrays

_Heads = tuple[np.ndarray, np.ndarray, np.ndarray]

_erf = np.frompyfunc(math.erf, 1, 1)


def embed(
    layers: Layers, inputs: np.ndarray, starts: np.ndarray | None
) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
    """Tokens (B, T) -> (B, T, W); its backward pass adds to the gradient of a token embedding that has one already."""
    tokens, positions = layers.parameters["token_embedding"], layers.parameters["position_embedding"]
    places = np.broadcast_to(np.arange(inputs.shape[1]), inputs.shape) - (0 if starts is None else starts)

    def backward(d: np.ndarray, gradients: Arrays) -> None:
        gradients.setdefault("token_embedding", np.zeros_like(tokens))
        np.add.at(gradients["token_embedding"], inputs, d)  # a token may stand there more than once
        gradients["position_embedding"] = np.zeros_like(positions)
        np.add.at(gradients["position_embedding"], places, d)

    return tokens[inputs] + positions[places], backward


def rotations(layers: Layers, inputs: np.ndarray, starts: np.ndarray | None) -> np.ndarray | None:
    """None: nothing is turned."""
    return None


def norm(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """Layer norm (Ba, Kiros & Hinton, arXiv:1607.06450)."""
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
    """(B, T, 3 W) -> queries, keys and values (B, H, T, Q); and the function from their gradients to that of `qkv`."""
    B, T, width = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, layers.point.num_heads, -1).transpose(2, 0, 3, 1, 4)

    def backward(*parts: np.ndarray) -> np.ndarray:
        return np.stack(parts).transpose(1, 3, 0, 2, 4).reshape(B, T, width)

    return (q, k, v), backward


def mlp(layers: Layers, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """down(activate(up(x)))."""
    up, up_backward = layers.linear(x, f"{name}.up")
    active, active_backward = activate(layers, up)
    down, down_backward = layers.linear(active, f"{name}.down")

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        return up_backward(active_backward(down_backward(d, gradients)), gradients)

    return down, backward


def activate(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """x Φ(x), exact or with Φ by tanh (Hendrycks & Gimpel, arXiv:1606.08415), or max(x, 0)."""
    if layers.point.activation == "relu":
        return np.maximum(x, 0), lambda d: d * (x > 0)
    is_exact = layers.point.activation == "gelu"
    bent = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    curve = _erf(x * math.sqrt(0.5)).astype(np.float64) if is_exact else np.tanh(bent.astype(np.float64))
    probability = (0.5 + 0.5 * curve).astype(layers.parameter_dtype)

    def backward(d: np.ndarray) -> np.ndarray:
        if is_exact:
            density = np.exp(np.square(x) * -0.5) * math.sqrt(0.5 / math.pi)
        else:
            slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * np.square(x))
            density = 2 * probability * (1 - probability) * slope
        return d * (probability + x * density)

    return x * probability, backward


def _standard(x: np.ndarray, epsilon: float) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(x - mean) / standard deviation over the last dimension, and from its gradient to that of x."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    normal = centred * inverse

    def backward(d: np.ndarray) -> np.ndarray:
        return inverse * (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True))

    return normal, backward


def _scale(layers: Layers, normal: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
    """Times the gain of a norm, plus its bias."""
    gain = layers.parameters[f"{name}.gain"]

    def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
        gradients[f"{name}.gain"] = _rows(d * normal).sum(axis=0)
        gradients[f"{name}.bias"] = _rows(d).sum(axis=0)
        return d * gain

    return normal * gain + layers.parameters[f"{name}.bias"], backward
