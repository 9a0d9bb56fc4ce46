"""The GPT decoder in numpy, forward and backward: pre-norm, learned positions, GELU, tied embeddings.

Shapes: B micro-batch, T sequence, H heads, Q head size, W = H·Q width, V vocabulary. A part returns its value and its
backward pass, which takes the gradient of the value, notes those of the parameters, and returns that of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.attention import attention
from hvbench.frameworks.numpy.runtime import DTYPES, _round_to

from hvbench.frameworks.contract import Arrays
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.dropout import Seed

_Backward = Callable[[np.ndarray, Arrays], np.ndarray]

_erf = np.frompyfunc(math.erf, 1, 1)


class Model:
    """Parameters by canonical name, and the functions over them."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        if point.objective != "causal_lm":
            raise ValueError(f"numpy predicts the next token only, not {point.objective}")
        if point.dropout:
            raise ValueError("numpy has no dropout: give dropout=0")
        if point.recompute != "none":
            raise ValueError("numpy recomputes nothing: give recompute=none")
        if point.segmentation == "documents":
            raise ValueError("numpy has no mask for documents: give segmentation=windows")
        if point.compile != "none":
            raise ValueError("numpy has no compiler: give compile=none")
        self.point = point
        self.parameter_dtype = DTYPES[precision.parameter_dtype]
        self.compute_dtype = precision.compute_dtype
        self.is_rounded = precision.compute_dtype != precision.parameter_dtype
        self.parameters = {name: np.array(value, dtype=self.parameter_dtype) for name, value in weights.items()}

    def logits(self, inputs: np.ndarray, *, starts: np.ndarray | None = None, seed: Seed | None = None) -> np.ndarray:
        """Tokens (B, T) -> logits (B, T, V) in the parameters' dtype; without dropout there is no seed."""
        return self._decode(inputs)[0]

    def loss(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        starts: np.ndarray | None = None,
        seed: Seed | None = None,
    ) -> tuple[float, Callable[[float], Arrays]]:
        """Mean cross-entropy of tokens (B, T) against targets (B, T), in nats; and factor -> gradients of its multiple."""
        logits, decode_backward = self._decode(inputs)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, targets[..., None], axis=-1)
        probabilities = np.exp(logits, out=logits)
        sums = probabilities.sum(axis=-1, keepdims=True)
        loss = float((np.log(sums) - chosen).mean())

        def backward(factor: float) -> Arrays:
            d = probabilities / sums
            at_target = np.take_along_axis(d, targets[..., None], axis=-1)
            np.put_along_axis(d, targets[..., None], at_target - 1, axis=-1)
            gradients: Arrays = {}
            decode_backward(d * (factor / targets.size), gradients)
            return {name: gradients[name] for name in self.parameters}

        return loss, backward

    def sample_losses(self, inputs: np.ndarray, targets: np.ndarray, *, starts: np.ndarray | None = None) -> np.ndarray:
        """Mean cross-entropy (B) of each sample."""
        return np.array([self.loss(inputs[i : i + 1], targets[i : i + 1])[0] for i in range(len(inputs))])

    def _decode(self, inputs: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
        p = self.parameters
        T = inputs.shape[1]
        x = p["token_embedding"][inputs] + p["position_embedding"][:T]  # (B, T, W)
        passed: list[tuple[_Backward, _Backward]] = []
        for layer in range(self.point.num_layers):
            for norm, part, name in (("norm1", self._attention, "attention"), ("norm2", self._mlp, "mlp")):
                normal, norm_backward = self._layer_norm(x, f"block{layer}.{norm}")
                value, part_backward = part(normal, f"block{layer}.{name}")
                x = x + value
                passed.append((norm_backward, part_backward))
        x, final_backward = self._layer_norm(x, "final_norm")
        x, embedding = self._round(x), self._round(p["token_embedding"])
        logits = self._round(x @ embedding.T)

        def backward(d: np.ndarray, gradients: Arrays) -> None:
            d = self._round(d)
            d_embedding = self._round(_rows(d).T @ _rows(x))
            d = final_backward(self._round(d @ embedding), gradients)
            for norm_backward, part_backward in reversed(passed):
                d = d + norm_backward(part_backward(d, gradients), gradients)
            np.add.at(d_embedding, inputs, d)  # a token may stand there more than once
            gradients["token_embedding"] = d_embedding
            gradients["position_embedding"] = np.zeros_like(p["position_embedding"])
            gradients["position_embedding"][:T] = d.sum(axis=0)

        return logits, backward

    def _attention(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        B, T, W = x.shape
        H = self.point.num_heads
        qkv, qkv_backward = self._linear(x, f"{name}.qkv")
        q, k, v = qkv.reshape(B, T, 3, H, W // H).transpose(2, 0, 3, 1, 4)  # each (B, H, T, Q)
        heads, attention_backward = attention(q, k, v, point=self.point, rate=0.0, seed=None)
        heads = heads.transpose(0, 2, 1, 3).reshape(B, T, W)
        out, out_backward = self._linear(heads, f"{name}.out")

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d_heads = out_backward(d, gradients).reshape(B, T, H, W // H).transpose(0, 2, 1, 3)
            parts = attention_backward(d_heads)
            return qkv_backward(np.stack(parts).transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * W), gradients)

        return out, backward

    def _mlp(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        up, up_backward = self._linear(x, f"{name}.up")
        # x Φ(x), exact or with Φ by tanh (Hendrycks & Gimpel, arXiv:1606.08415)
        is_exact = self.point.activation == "gelu"
        bent = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
        curve = _erf(up * math.sqrt(0.5)).astype(np.float64) if is_exact else np.tanh(bent.astype(np.float64))
        probability = (0.5 + 0.5 * curve).astype(self.parameter_dtype)
        down, down_backward = self._linear(up * probability, f"{name}.down")

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            if is_exact:
                density = np.exp(np.square(up) * -0.5) * math.sqrt(0.5 / math.pi)
            else:
                slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * np.square(up))
                density = 2 * probability * (1 - probability) * slope
            return up_backward(down_backward(d, gradients) * (probability + up * density), gradients)

        return down, backward

    def _linear(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        x = self._round(x)
        weight = self._round(self.parameters[f"{name}.weight"])  # (in, out)
        y = self._round(x @ weight + self._round(self.parameters[f"{name}.bias"]))

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d = self._round(d)
            gradients[f"{name}.weight"] = self._round(_rows(x).T @ _rows(d))
            gradients[f"{name}.bias"] = self._round(_rows(d).sum(axis=0))
            return self._round(d @ weight.T)

        return y, backward

    def _layer_norm(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        gain = self.parameters[f"{name}.gain"]
        centred = x - x.mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
        normal = centred * inverse

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            gradients[f"{name}.gain"] = _rows(d * normal).sum(axis=0)
            gradients[f"{name}.bias"] = _rows(d).sum(axis=0)
            d = d * gain
            return inverse * (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True))

        return normal * gain + self.parameters[f"{name}.bias"], backward

    def _round(self, x: np.ndarray) -> np.ndarray:
        """To the compute dtype, carried in the parameters': numpy multiplies quickly in no lower one. Its own derivative."""
        return _round_to(x, self.compute_dtype) if self.is_rounded else x


def multiply(left: np.ndarray, right: np.ndarray, *, transposed: str, gemm: str) -> np.ndarray:
    """A product of linear layers or logits alone; see `hvbench.training.products.Product` for `transposed`.

    `gemm` is PyTorch's: here a product has one library.
    """
    return (left.T if transposed == "left" else left) @ (right.T if transposed == "right" else right)


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])
