"""Llama in TensorFlow: RMS norms, rotary positions, grouped-query attention, SwiGLU, no biases (Touvron et al., arXiv:2302.13971).

Gradients are written out, which saves passes over memory: TensorFlow has no fused CPU kernels for these operations.

Shapes: B micro-batch, T sequence length, H heads of queries, K of keys and values, Q head size, W = H·Q hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from hvbench.frameworks.tensorflow.execution import _with_gradient
from hvbench.frameworks.tensorflow.layers import Layers, _sum_rows, mean_of_tokens


def embed(layers: Layers, inputs: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor:
    """Tokens [B, T] -> their embeddings [B, T, W]."""
    return tf.gather(layers.parameters["token_embedding"], inputs)


def rotations(layers: Layers, inputs: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor | None:
    """Cosines and sines of the angles by which positions turn pairs of values: [2, T, Q/2], or [2, B, 1, T, Q/2] with documents."""
    T, table = inputs.shape[1], layers.constants["rotary"]
    if starts is None:
        return table[:, :T]
    return tf.gather(table, tf.range(T) - starts, axis=1)[:, :, None]


def norm(layers: Layers, x: tf.Tensor, name: str) -> tf.Tensor:
    """RMS norm of x [B, T, W] over W (Zhang & Sennrich, arXiv:1910.07467)."""
    return _with_gradient(partial(_normalize, layers.traits.norm_epsilon))(x, layers.parameters[f"{name}.gain"])


def finish(layers: Layers, x: tf.Tensor) -> tf.Tensor:
    """The last norm [B, T, W]."""
    return norm(layers, x, "final_norm")


def pool(layers: Layers, x: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None) -> tf.Tensor:
    """The mean of the last norm over positions that are no padding: [B, T, W] -> [samples, 1, W]; the gain comes after it, as in `gpt2.pool`."""
    standardized = _with_gradient(partial(_standard, layers.traits.norm_epsilon))(x)
    return mean_of_tokens(standardized, starts, places) * layers.parameters["final_norm.gain"]


def split_heads(layers: Layers, qkv: tf.Tensor, rotation: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Queries of H heads, keys and values of K, one behind the other [B, T, (H + 2 K) Q] -> each [B, H, T, Q].

    Queries and keys are turned by their positions in the parameters' dtype. H / K neighbouring heads share keys and values
    (Ainslie et al., arXiv:2305.13245).
    """
    B, T, width = qkv.shape
    H, K = layers.point.num_heads, layers.point.kv_heads
    heads = tf.transpose(tf.reshape(qkv, (B, T, H + 2 * K, width // (H + 2 * K))), (0, 2, 1, 3))
    parts = tf.split(heads, [H, K, K], axis=1)
    q, k = (layers.round(_rotate(layers.widen(part), rotation)) for part in parts[:2])
    k, v = (_repeat(part, H // K) for part in (k, parts[2]))
    return q, k, v


def mlp(layers: Layers, x: tf.Tensor, name: str) -> tf.Tensor:
    """down(SiLU(gate(x)) up(x)) (Shazeer, arXiv:2002.05202), the factors in the parameters' dtype."""
    x = layers.round(x)  # once for both
    gate, up = (layers.widen(layers.linear(x, f"{name}.{part}")) for part in ("gate", "up"))
    return layers.linear(_swiglu(gate, up), f"{name}.down")


@_with_gradient
def _rotate(x: tf.Tensor, rotation: tf.Tensor):
    """x [B, H, T, Q] with its pairs turned (Su et al., arXiv:2104.09864): value i of the first half goes with value i of the second."""
    cosines, sines = tf.unstack(rotation)

    def turn(x: tf.Tensor, sines: tf.Tensor) -> tf.Tensor:
        first, second = tf.split(x, 2, axis=-1)
        return tf.concat([first * cosines - second * sines, second * cosines + first * sines], axis=-1)

    return turn(x, sines), lambda d: (turn(d, -sines), None)


def _repeat(x: tf.Tensor, times: int) -> tf.Tensor:
    """x [B, K, T, Q] -> [B, K · times, T, Q]: each head so often, one behind the other."""
    if times == 1:
        return x
    B, K, T, Q = x.shape

    def repeat(x: tf.Tensor):
        """The heads, and their gradient: a sum, in float32 where they have 16 bits, as PyTorch's is."""

        def backward(d: tf.Tensor) -> tf.Tensor:
            d = tf.reshape(d, (B, K, times, T, Q))
            wide = tf.cast(d, tf.float32) if d.dtype.size < 4 else d
            return tf.cast(tf.reduce_sum(wide, axis=2), x.dtype)

        repeated = tf.broadcast_to(x[:, :, None], (B, K, times, T, Q))
        return tf.reshape(repeated, (B, K * times, T, Q)), backward

    return _with_gradient(repeat)(x)


@_with_gradient
def _swiglu(gate: tf.Tensor, up: tf.Tensor):
    """SiLU(gate) up, where SiLU(x) = x / (1 + exp(-x))."""
    sigmoid = tf.sigmoid(gate)
    silu = gate * sigmoid

    def backward(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return d * up * (sigmoid + silu * (1 - sigmoid)), d * silu

    return silu * up, backward


def _standard(epsilon: float, x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """x / its root mean square over the last dimension, and the function from its gradient to the gradient of x."""
    last = tf.constant(-1)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=last, keepdims=True) + epsilon)
    normal = x * inverse

    def backward(d: tf.Tensor) -> tf.Tensor:
        return inverse * (d - normal * tf.reduce_mean(d * normal, axis=last, keepdims=True))

    return normal, backward


def _normalize(epsilon: float, x: tf.Tensor, gain: tf.Tensor):
    """RMS norm of x [B, T, W] over W."""
    normal, standard_backward = _standard(epsilon, x)

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return standard_backward(dy * gain), _sum_rows(dy * normal)

    return normal * gain, backward
