"""LoRA, bottleneck adapters and prefixes in numpy, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.layers import Layers, _Backward

from hvbench.frameworks.contract import Arrays

_erf = np.frompyfunc(math.erf, 1, 1)


class AdaptedLayers(Layers):
    """Linear layers with what LoRA adds to them, adapters, and prefixes of attention."""

    def linear(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        """x (..., in) -> x W + b (..., out), and alpha / r x A B more where the layer has those."""
        y, base_backward = super().linear(x, name)
        if f"{name}.lora_a.weight" not in self.parameters:
            return y, base_backward
        low, a_backward = super().linear(x, f"{name}.lora_a")
        more, b_backward = super().linear(low, f"{name}.lora_b")
        scale = self.point.lora_alpha / self.point.lora_rank

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d = self.round(d)
            d_x = base_backward(d, gradients)
            return self.round(d_x + a_backward(b_backward(d * scale, gradients), gradients))

        return self.round(y + more * scale), backward

    def adapt(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        """x + up(GELU(down(x))), by the adapter of that name; x where there is none."""
        if f"{name}.down.weight" not in self.parameters:
            return x, lambda d, gradients: d
        low, down_backward = self.linear(x, f"{name}.down")
        probability = (0.5 + 0.5 * _erf(low * math.sqrt(0.5)).astype(np.float64)).astype(self.parameter_dtype)
        more, up_backward = self.linear(low * probability, f"{name}.up")

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            density = np.exp(np.square(low) * -0.5) * math.sqrt(0.5 / math.pi)
            return d + down_backward(up_backward(d, gradients) * (probability + low * density), gradients)

        return x + more, backward

    def prefix(
        self, k: np.ndarray, v: np.ndarray, name: str
    ) -> tuple[tuple[np.ndarray, np.ndarray], Callable[[np.ndarray, np.ndarray, Arrays], tuple[np.ndarray, ...]]]:
        """Keys and values (B, H, T, Q) behind the prefixes of the attention of that name, and from their gradients to those of both."""
        P, K, (B, H, _, Q) = self.point.num_prefixes, self.point.kv_heads, k.shape
        if not P:
            return (k, v), lambda d_k, d_v, gradients: (d_k, d_v)
        names = [f"{name}.prefix.{part}" for part in ("keys", "values")]

        def behind(x: np.ndarray, name: str) -> np.ndarray:
            heads = self.round(self.parameters[name]).reshape(P, K, Q).transpose(1, 0, 2)
            return np.concatenate([np.broadcast_to(np.repeat(heads, H // K, axis=0), (B, H, P, Q)), x], axis=2)

        def backward(d_k: np.ndarray, d_v: np.ndarray, gradients: Arrays) -> tuple[np.ndarray, ...]:
            for key, d in zip(names, (d_k, d_v), strict=True):
                of_heads = d[:, :, :P].reshape(B, K, H // K, P, Q).sum(axis=(0, 2))
                gradients[key] = of_heads.transpose(1, 0, 2).reshape(P, K * Q)
            return d_k[:, :, P:], d_v[:, :, P:]

        return (behind(k, names[0]), behind(v, names[1])), backward
