"""The model and its update in plain numpy float64, written from the papers and not from the twins.

GPT-2 (pre-norm decoder, tied embeddings, GELU, exact or by its tanh form, arXiv:1606.08415), layer norm (arXiv:1607.06450); Llama (RMS norm,
arXiv:1910.07467; rotary positions, arXiv:2104.09864, eq. 15; SwiGLU, arXiv:2002.05202; grouped-query attention, arXiv:2305.13245); BERT (norms of sums, segments, pooler, arXiv:1810.04805); AdamW
(arXiv:1711.05101, algorithm 2), loops where they are clearer than broadcasting.
"""

from __future__ import annotations

import math

import numpy as np

from hvbench.frameworks.contract import Arrays

erf = np.vectorize(math.erf)
SEPARATOR = 0xFE  # [SEP] among raw bytes


def reference_logits(
    weights: Arrays,
    inputs: np.ndarray,
    *,
    num_layers: int,
    num_heads: int,
    is_causal: bool = True,
    activation: str = "gelu",
    lora_scale: float = 0.0,
) -> np.ndarray:
    """Tokens (batch, time) -> logits (batch, time, vocabulary), or (batch, classes) where there is a classifier.

    Weights without learned positions are Llama's, those with segments are BERT's. LoRA's pairs are merged (arXiv:2106.09685, section 4.1), and
    adapters stand where they are (arXiv:1902.00751, figure 2), wherever there are any.
    """
    for name in [name.removesuffix("lora_a.weight") for name in weights if name.endswith("lora_a.weight")]:
        more = weights[f"{name}lora_a.weight"] @ weights[f"{name}lora_b.weight"]
        weights = {**weights, f"{name}weight": weights[f"{name}weight"] + lora_scale * more}
    if "segment_embedding" in weights:
        how = {"num_layers": num_layers, "num_heads": num_heads, "is_causal": is_causal, "activation": activation}
        return _bert_logits(weights, inputs, **how)
    if "position_embedding" not in weights:
        return _llama_logits(weights, inputs, num_layers=num_layers, num_heads=num_heads, is_causal=is_causal)
    x = weights["token_embedding"][inputs] + weights["position_embedding"][np.arange(inputs.shape[1])]
    for layer in range(num_layers):
        w = {name.removeprefix(f"block{layer}."): value for name, value in weights.items()}
        normal = _layer_norm(x, w["norm1.gain"], w["norm1.bias"])
        x = x + _adapted(_attention(normal, w, num_heads=num_heads, is_causal=is_causal), w, "attention.adapter")
        up = _layer_norm(x, w["norm2.gain"], w["norm2.bias"]) @ w["mlp.up.weight"] + w["mlp.up.bias"]
        x = x + _adapted(_activate(up, activation) @ w["mlp.down.weight"] + w["mlp.down.bias"], w, "mlp.adapter")
    x = _layer_norm(x, weights["final_norm.gain"], weights["final_norm.bias"])
    if "classifier.weight" in weights:
        return x.mean(axis=1) @ weights["classifier.weight"] + weights["classifier.bias"]
    return x @ weights["token_embedding"].T


def reference_loss(weights: Arrays, inputs: np.ndarray, targets: np.ndarray, **how: int | bool | str) -> float:
    """Mean of -log p(target) over all targets that are not negative, for tokens (accumulation steps, batch, time).

    Of pairs of texts the first target is the pair's class, whose mean is added, unless they are all negative. `how`: as `reference_logits` takes it.
    """
    inputs = inputs.reshape(-1, inputs.shape[-1])
    logits = reference_logits(weights, inputs, **how)
    asked = targets.reshape(logits.shape[:-1])
    if "next_sentence.weight" not in weights:
        return _cross_entropy(logits, asked)
    tokens = np.where(np.arange(inputs.shape[1]) > 0, asked, -1)
    of_pairs = (
        _cross_entropy(reference_pair_logits(weights, inputs, **how), asked[:, 0]) if (asked[:, 0] >= 0).all() else 0
    )
    return _cross_entropy(logits, tokens) + of_pairs


def reference_pair_logits(weights: Arrays, inputs: np.ndarray, **how: int | bool | str) -> np.ndarray:
    """Pairs of texts (batch, time) -> logits (batch, 2) that the second follows the first, and that it does not."""
    names = "num_layers", "num_heads", "is_causal", "activation"
    x = _bert_blocks(weights, inputs, **{name: how[name] for name in names})
    pooled = np.tanh(x[:, 0] @ weights["pooler.weight"] + weights["pooler.bias"])
    return pooled @ weights["next_sentence.weight"] + weights["next_sentence.bias"]


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


def _cross_entropy(logits: np.ndarray, asked: np.ndarray) -> float:
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    chosen = np.take_along_axis(probabilities, np.maximum(asked, 0)[..., None], axis=-1)[..., 0]
    return float(-np.log(chosen[asked >= 0]).mean())


def _activate(x: np.ndarray, activation: str) -> np.ndarray:
    if activation == "relu":
        return np.where(x > 0, x, 0.0)
    curve = erf(x / math.sqrt(2)) if activation == "gelu" else np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + curve)


def _bert_blocks(
    weights: Arrays, inputs: np.ndarray, *, num_layers: int, num_heads: int, is_causal: bool, activation: str
) -> np.ndarray:
    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return _layer_norm(x, weights[f"{name}.gain"], weights[f"{name}.bias"], epsilon=1e-12)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    tokens, positions = weights["token_embedding"][inputs], weights["position_embedding"][np.arange(inputs.shape[1])]
    segments = np.zeros_like(inputs)
    if "next_sentence.weight" in weights:
        for row, sample in enumerate(inputs.tolist()):
            segments[row, sample.index(SEPARATOR) + 1 :] = 1
    x = norm(tokens + positions + weights["segment_embedding"][segments], "embedding_norm")
    for layer in range(num_layers):
        name = f"block{layer}"
        w = {key.removeprefix(f"{name}."): value for key, value in weights.items()}
        heads = _attention(x, w, num_heads=num_heads, is_causal=is_causal)
        x = norm(x + _adapted(heads, w, "attention.adapter"), f"{name}.norm1")
        inner = _activate(linear(x, f"{name}.mlp.up"), activation)
        x = norm(x + _adapted(linear(inner, f"{name}.mlp.down"), w, "mlp.adapter"), f"{name}.norm2")
    return x


def _bert_logits(weights: Arrays, inputs: np.ndarray, *, is_causal: bool, activation: str, **sizes: int) -> np.ndarray:
    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = _bert_blocks(weights, inputs, is_causal=is_causal, activation=activation, **sizes)
    if "classifier.weight" in weights:
        return linear(np.tanh(linear(x[:, -1 if is_causal else 0], "pooler")), "classifier")
    gain, bias = weights["head_norm.gain"], weights["head_norm.bias"]
    x = _layer_norm(_activate(linear(x, "head"), activation), gain, bias, epsilon=1e-12)
    return x @ weights["token_embedding"].T + weights["output.bias"]


def _llama_logits(
    weights: Arrays, inputs: np.ndarray, *, num_layers: int, num_heads: int, is_causal: bool
) -> np.ndarray:
    x = weights["token_embedding"][inputs]
    for layer in range(num_layers):
        w = {name.removeprefix(f"block{layer}."): value for name, value in weights.items()}
        qkv = _rms_norm(x, w["norm1.gain"]) @ w["attention.qkv.weight"]
        heads = _grouped_attention(qkv, num_heads=num_heads, size=x.shape[-1] // num_heads, is_causal=is_causal)
        x = x + _adapted(heads @ w["attention.out.weight"], w, "attention.adapter")
        normal = _rms_norm(x, w["norm2.gain"])
        gate = normal @ w["mlp.gate.weight"]
        down = (gate / (1 + np.exp(-gate)) * (normal @ w["mlp.up.weight"])) @ w["mlp.down.weight"]
        x = x + _adapted(down, w, "mlp.adapter")
    x = _rms_norm(x, weights["final_norm.gain"])
    if "classifier.weight" in weights:
        return x.mean(axis=1) @ weights["classifier.weight"] + weights["classifier.bias"]
    return x @ weights.get("output_embedding", weights["token_embedding"]).T


def _adapted(x: np.ndarray, w: Arrays, name: str) -> np.ndarray:
    """x and what a bottleneck makes of it; x alone where there is none."""
    if f"{name}.down.weight" not in w:
        return x
    down = x @ w[f"{name}.down.weight"] + w[f"{name}.down.bias"]
    return x + (0.5 * down * (1 + erf(down / math.sqrt(2)))) @ w[f"{name}.up.weight"] + w[f"{name}.up.bias"]


def _rms_norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * gain


def _rotated(vectors: np.ndarray, time: int, theta: float = 10_000.0) -> np.ndarray:
    """(…, size) at a time: values i and i + size / 2 are the coordinates of a point that is turned by time · theta^(-2 i / size)."""
    half = vectors.shape[-1] // 2
    turned = np.empty_like(vectors)
    for i in range(half):
        angle = time * theta ** (-2 * i / vectors.shape[-1])
        as_complex = (vectors[..., i] + 1j * vectors[..., i + half]) * np.exp(1j * angle)
        turned[..., i], turned[..., i + half] = as_complex.real, as_complex.imag
    return turned


def _grouped_attention(qkv: np.ndarray, *, num_heads: int, size: int, is_causal: bool) -> np.ndarray:
    """Queries of all heads, keys and values of fewer, side by side (batch, time, …) -> (batch, time, heads · size)."""
    batches, times, width = qkv.shape
    shared = (width // size - num_heads) // 2
    query, key, value = (
        part.reshape(batches, times, -1, size)
        for part in np.split(qkv, [num_heads * size, (num_heads + shared) * size], axis=-1)
    )
    query, key = (np.stack([_rotated(each[:, t], t) for t in range(times)], axis=1) for each in (query, key))
    out = np.zeros((batches, times, num_heads, size))
    for head in range(num_heads):
        group = head * shared // num_heads
        for batch in range(batches):
            for time in range(times):
                seen = time + 1 if is_causal else times
                scores = np.exp(key[batch, :seen, group] @ query[batch, time, head] / math.sqrt(size))
                out[batch, time, head] = scores / scores.sum() @ value[batch, :seen, group]
    return out.reshape(batches, times, -1)


def _layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5) -> np.ndarray:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gain + bias


def _attention(x: np.ndarray, w: Arrays, *, num_heads: int, is_causal: bool) -> np.ndarray:
    query, key, value = np.split(x @ w["attention.qkv.weight"] + w["attention.qkv.bias"], 3, axis=-1)
    # Prefixes, which every position sees (arXiv:2101.00190, section 4.2).
    first_keys, first_values = (
        w.get(f"attention.prefix.{part}", np.zeros((0, x.shape[-1]))) for part in ("keys", "values")
    )
    size = x.shape[-1] // num_heads
    out = np.zeros_like(x)
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for batch in range(x.shape[0]):
            for time in range(x.shape[1]):  # each position looks at itself and at what came before, or at all others
                seen = time + 1 if is_causal else x.shape[1]
                keys, values = (
                    np.concatenate(pair)
                    for pair in (
                        (first_keys[:, part], key[batch, :seen, part]),
                        (first_values[:, part], value[batch, :seen, part]),
                    )
                )
                scores = keys @ query[batch, time, part] / math.sqrt(size)
                attention = np.exp(scores) / np.exp(scores).sum()
                out[batch, time, part] = attention @ values
    return out @ w["attention.out.weight"] + w["attention.out.bias"]
