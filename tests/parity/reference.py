"""The model and its update in plain numpy float64, written from the papers and not from the twins.

GPT-2 (pre-norm decoder, tied embeddings, GELU, exact or by its tanh form, arXiv:1606.08415), layer norm (arXiv:1607.06450), AdamW
(arXiv:1711.05101, algorithm 2), loops where they are clearer than broadcasting.
"""

from __future__ import annotations

import math

import numpy as np

from hvbench.frameworks.contract import Arrays

erf = np.vectorize(math.erf)


def reference_logits(
    weights: Arrays,
    inputs: np.ndarray,
    *,
    num_layers: int,
    num_heads: int,
    is_causal: bool = True,
    activation: str = "gelu",
) -> np.ndarray:
    """Tokens (batch, time) -> logits (batch, time, vocabulary), or (batch, classes) where there is a classifier."""
    x = weights["token_embedding"][inputs] + weights["position_embedding"][np.arange(inputs.shape[1])]
    for layer in range(num_layers):
        w = {name.removeprefix(f"block{layer}."): value for name, value in weights.items()}
        x = x + _attention(
            _layer_norm(x, w["norm1.gain"], w["norm1.bias"]), w, num_heads=num_heads, is_causal=is_causal
        )
        up = _layer_norm(x, w["norm2.gain"], w["norm2.bias"]) @ w["mlp.up.weight"] + w["mlp.up.bias"]
        curve = (
            erf(up / math.sqrt(2)) if activation == "gelu" else np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3))
        )
        x = x + (0.5 * up * (1 + curve)) @ w["mlp.down.weight"] + w["mlp.down.bias"]
    x = _layer_norm(x, weights["final_norm.gain"], weights["final_norm.bias"])
    if "classifier.weight" in weights:
        return x.mean(axis=1) @ weights["classifier.weight"] + weights["classifier.bias"]
    return x @ weights["token_embedding"].T


def reference_loss(weights: Arrays, inputs: np.ndarray, targets: np.ndarray, **how: int | bool | str) -> float:
    """Mean of -log p(target) over all targets that are not negative, for tokens (accumulation steps, batch, time).

    `how`: as `reference_logits` takes it.
    """
    logits = reference_logits(weights, inputs.reshape(-1, inputs.shape[-1]), **how)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    asked = targets.reshape(logits.shape[:-1])
    chosen = np.take_along_axis(probabilities, np.maximum(asked, 0)[..., None], axis=-1)[..., 0]
    return float(-np.log(chosen[asked >= 0]).mean())


def reference_updates(
    value: np.ndarray,
    gradients: list[np.ndarray],
    rates: list[float],
    *,
    weight_decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> list[np.ndarray]:
    """One tensor after each of AdamW's steps; `weight_decay` is multiplied by the rate, as all frameworks do."""
    first, second, values = np.zeros_like(value), np.zeros_like(value), []
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        unbiased_first, unbiased_second = first / (1 - beta1**t), second / (1 - beta2**t)
        value = value - rate * (unbiased_first / (np.sqrt(unbiased_second) + epsilon) + weight_decay * value)
        values.append(value)
    return values


def _layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * gain + bias


def _attention(x: np.ndarray, w: Arrays, *, num_heads: int, is_causal: bool) -> np.ndarray:
    query, key, value = np.split(x @ w["attention.qkv.weight"] + w["attention.qkv.bias"], 3, axis=-1)
    size = x.shape[-1] // num_heads
    out = np.zeros_like(x)
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for batch in range(x.shape[0]):
            for time in range(x.shape[1]):  # each position looks at itself and at what came before, or at all others
                seen = time + 1 if is_causal else x.shape[1]
                scores = key[batch, :seen, part] @ query[batch, time, part] / math.sqrt(size)
                attention = np.exp(scores) / np.exp(scores).sum()
                out[batch, time, part] = attention @ value[batch, :seen, part]
    return out @ w["attention.out.weight"] + w["attention.out.bias"]
