"""GPT-2 in TensorFlow: layer norms, learned positions, GELU (Radford et al., 2019).

GELU and layer norm have their gradients written out, which saves passes over memory: TensorFlow has no fused CPU kernels for them.

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from hvbench.frameworks.tensorflow.execution import _with_gradient
from hvbench.frameworks.tensorflow.layers import Layers, _sum_rows, mean_of_tokens


def embed(layers: Layers, inputs: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor:
    """Tokens [B, T] -> their embeddings plus those of their positions [B, T, W]."""
    T, positions = inputs.shape[1], layers.parameters["position_embedding"]
    tokens = tf.gather(layers.parameters["token_embedding"], inputs)
    if starts is None:
        return tokens + positions[:T]
    return tokens + tf.gather(positions, tf.range(T) - starts)


def rotations(layers: Layers, inputs: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor | None:
    """None: queries and keys know positions from the residual stream."""
    return None


def norm(layers: Layers, x: tf.Tensor, name: str) -> tf.Tensor:
    """Layer norm of x [B, T, W] over W (Ba, Kiros & Hinton, arXiv:1607.06450)."""
    gain, bias = layers.parameters[f"{name}.gain"], layers.parameters[f"{name}.bias"]
    return _with_gradient(partial(_normalize, layers.traits.norm_epsilon))(x, gain, bias)


def finish(layers: Layers, x: tf.Tensor) -> tf.Tensor:
    """The last norm [B, T, W]."""
    return norm(layers, x, "final_norm")


def pool(layers: Layers, x: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None) -> tf.Tensor:
    """The mean of the last norm over positions that are no padding: [B, T, W] -> [samples, 1, W].

    Gain and bias are applied after the mean, so that their gradients are sums of B rows. Before the mean they would be
    sums of B·T rows of which T at a time are equal, and float32 rounding errors of such a sum all go the same way.
    """
    normal = mean_of_tokens(_with_gradient(partial(_standard, layers.traits.norm_epsilon))(x), starts, places)
    return normal * layers.parameters["final_norm.gain"] + layers.parameters["final_norm.bias"]


def split_heads(layers: Layers, qkv: tf.Tensor, rotation: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Queries, keys and values [B, T, 3 W] of all heads, one behind the other -> each [B, H, T, Q]."""
    B, T, width = qkv.shape
    H = layers.point.num_heads
    q, k, v = tf.unstack(tf.transpose(tf.reshape(qkv, (B, T, 3, H, width // (3 * H))), (2, 0, 3, 1, 4)))
    return q, k, v


def mlp(layers: Layers, x: tf.Tensor, name: str) -> tf.Tensor:
    """down(activate(up(x))).

    The activation is computed in the parameters' dtype: TensorFlow would round after every elementwise operation, where PyTorch's
    fused kernel rounds once.
    """
    return layers.linear(activate(layers, layers.widen(layers.linear(x, f"{name}.up"))), f"{name}.down")


def activate(layers: Layers, x: tf.Tensor) -> tf.Tensor:
    """GELU, exact or by its tanh form (Hendrycks & Gimpel, arXiv:1606.08415), or ReLU."""
    return {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "relu": tf.nn.relu}[layers.point.activation](x)


@_with_gradient
def _gelu(x: tf.Tensor):
    """x Φ(x), exact (Hendrycks & Gimpel, arXiv:1606.08415)."""
    scaled = x * -math.sqrt(0.5)
    probability = 0.5 * tf.math.erfc(scaled)  # Φ(x)

    def backward(dy: tf.Tensor) -> tf.Tensor:
        # Φ(x) + x exp(-x²/2) / √(2π), in as few passes over memory as there are: x is -√2 scaled, and the factor is in the exponent.
        return dy * (probability - scaled * tf.exp(-0.5 * math.log(math.pi) - tf.square(scaled)))

    return x * probability, backward


@_with_gradient
def _gelu_tanh(x: tf.Tensor):
    """x (1 + tanh(u)) / 2 = x σ(2u) with u = √(2/π) (x + 0.044715 x³) (Hendrycks & Gimpel, arXiv:1606.08415, section 2)."""
    scale, square = 2.0 * math.sqrt(2.0 / math.pi), tf.square(x)
    gate = tf.sigmoid(x * (scale + (scale * 0.044715) * square))

    def backward(dy: tf.Tensor) -> tf.Tensor:
        slope = x * (scale + (scale * 3 * 0.044715) * square)  # x · d(2u)/dx
        return dy * (gate + gate * (1.0 - gate) * slope)

    return x * gate, backward


def _standard(epsilon: float, x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """(x - mean) / standard deviation over the last dimension, and the function from its gradient to the gradient of x."""
    last = tf.constant(-1)  # the same tensor for all sums: each operation less is traced and optimized sooner
    centred = x - tf.reduce_mean(x, axis=last, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=last, keepdims=True) + epsilon)
    normal = centred * inverse

    def backward(d: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(d, axis=last, keepdims=True)
        slope = tf.reduce_mean(d * normal, axis=last, keepdims=True)
        return inverse * (d - mean - normal * slope)

    return normal, backward


def _normalize(epsilon: float, x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor):
    """Layer norm of x [B, T, W] over W (Ba, Kiros & Hinton, arXiv:1607.06450)."""
    normal, standard_backward = _standard(epsilon, x)

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return standard_backward(dy * gain), _sum_rows(dy * normal), _sum_rows(dy)

    return normal * gain + bias, backward
