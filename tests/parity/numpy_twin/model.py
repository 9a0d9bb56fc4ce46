"""The transformer in numpy, forward and backward; `families` has what its blocks are made of.

Shapes: B micro-batch, T sequence, H heads, Q head size, W = H·Q width, V vocabulary. A part returns its value and its
backward pass, which takes the gradient of the value, notes those of the parameters, and returns that of the input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hvbench.frameworks.numpy.attention import attention
from hvbench.frameworks.numpy.families import FAMILIES
from hvbench.frameworks.numpy.layers import Layers, _Backward, _rows, multiply_by_rows

from hvbench.frameworks.contract import Arrays
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.dropout import Seed


class Model(Layers):
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
        super().__init__(point, weights, precision=precision, device=device)
        self.family = FAMILIES[point.family]

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
        x, embed_backward = self.family.embed(self, inputs, None)  # (B, T, W)
        rotation = self.family.rotations(self, inputs, None)
        passed: list[tuple[_Backward, _Backward]] = []
        for block in (f"block{layer}" for layer in range(self.point.num_layers)):
            normal, norm_backward = self.family.norm(self, x, f"{block}.norm1")
            value, part_backward = self._attention(normal, f"{block}.attention", rotation)
            x = x + value
            passed.append((norm_backward, part_backward))
            normal, norm_backward = self.family.norm(self, x, f"{block}.norm2")
            value, part_backward = self.family.mlp(self, normal, f"{block}.mlp")
            x = x + value
            passed.append((norm_backward, part_backward))
        x, final_backward = self.family.norm(self, x, "final_norm")
        name = "token_embedding" if self.point.tied_embeddings else "output_embedding"
        x, embedding = self.round(x), self.round(self.parameters[name])
        logits = self.round(multiply_by_rows(x, embedding, gemm=self.point.gemm))

        def backward(d: np.ndarray, gradients: Arrays) -> None:
            d = self.round(d)
            gradients[name] = self.round(_rows(d).T @ _rows(x))
            d = final_backward(self.round(d @ embedding), gradients)
            for norm_backward, part_backward in reversed(passed):
                d = d + norm_backward(part_backward(d, gradients), gradients)
            embed_backward(d, gradients)

        return logits, backward

    def _attention(self, x: np.ndarray, name: str, rotation: np.ndarray | None) -> tuple[np.ndarray, _Backward]:
        B, T, W = x.shape
        qkv, qkv_backward = self.linear(x, f"{name}.qkv")
        (q, k, v), split_backward = self.family.split_heads(self, qkv, rotation)  # each (B, H, T, Q)
        heads, attention_backward = attention(q, k, v, point=self.point, rate=0.0, seed=None)
        heads = heads.transpose(0, 2, 1, 3).reshape(B, T, W)
        out, out_backward = self.linear(heads, f"{name}.out")

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d_heads = out_backward(d, gradients).reshape(B, T, q.shape[1], -1).transpose(0, 2, 1, 3)
            return qkv_backward(split_backward(*attention_backward(d_heads)), gradients)

        return out, backward
