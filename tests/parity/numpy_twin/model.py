"""The transformer in numpy, forward and backward; `families` has what its blocks are made of.

Shapes: B micro-batch, T sequence, H heads, Q head size, W = H·Q width, V vocabulary. A part returns its value and its
backward pass, which takes the gradient of the value, notes those of the parameters, and returns that of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from hvbench.frameworks.numpy.adaptation import AdaptedLayers
from hvbench.frameworks.numpy.attention import attention, visible
from hvbench.frameworks.numpy.families import FAMILIES
from hvbench.frameworks.numpy.layers import _Backward, _rows, multiply_by_rows

from hvbench.frameworks.contract import Arrays
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.dropout import Seed
from hvbench.training.masking import IGNORED


class Model(AdaptedLayers):
    """Parameters by canonical name, and the functions over them."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        if point.dropout:
            raise ValueError("numpy has no dropout: give dropout=0")
        if point.recompute != "none":
            raise ValueError("numpy recomputes nothing: give recompute=none")
        if point.compile != "none":
            raise ValueError("numpy has no compiler: give compile=none")
        super().__init__(point, weights, precision=precision, device=device)
        self.family = FAMILIES[point.family]

    def logits(
        self,
        inputs: np.ndarray,
        *,
        starts: np.ndarray | None = None,
        places: np.ndarray | None = None,
        seed: Seed | None = None,
    ) -> np.ndarray:
        """Tokens (B, T) -> logits (B, T, V), (B, T, tags) or (samples, classes) in the parameters' dtype; without dropout there is no seed."""
        return self._project(self._read(self._encode(inputs, starts)[0], starts, places)[0])[0]

    def loss(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        *,
        starts: np.ndarray | None = None,
        places: np.ndarray | None = None,
        seed: Seed | None = None,
    ) -> tuple[float, Callable[[float], Arrays]]:
        """Mean cross-entropy, in nats, of tokens (B, T) against targets (B, T) that are not IGNORED, or classes (B), or the squared error of
        numbers (B); and factor -> gradients of its multiple.

        Of pairs of texts the first target is the pair's class, whose mean cross-entropy is added.
        """
        x, encode_backward = self._encode(inputs, starts)
        features, read_backward = self._read(x, starts, places)
        logits, project_backward = self._project(features)
        loss, d_logits = self._compare(logits, _hide_class(targets) if self.point.judges_pairs else targets)
        if self.point.judges_pairs:
            classes, judge_backward = self._judge(x)
            more, d_classes = _cross_entropy(classes, targets[:, 0])

        def backward(factor: float) -> Arrays:
            gradients: Arrays = {}
            d = read_backward(project_backward(d_logits * factor, gradients), gradients)
            if self.point.judges_pairs:
                d = d + judge_backward(d_classes * factor, gradients)
            encode_backward(d, gradients)
            return {name: gradients[name] for name in self.trained}

        return loss + more if self.point.judges_pairs else loss, backward

    def sample_losses(self, inputs: np.ndarray, targets: np.ndarray, *, starts: np.ndarray | None = None) -> np.ndarray:
        """Loss (B) of each sample, without classes of pairs."""
        targets = _hide_class(targets) if self.point.judges_pairs else targets
        logits = self.logits(inputs, starts=starts)
        return np.array([self._compare(logits[i : i + 1], targets[i : i + 1])[0] for i in range(len(logits))])

    def next_sentence_logits(self, inputs: np.ndarray) -> np.ndarray:
        """Pairs of texts (B, T) -> logits (B, 2) that the second follows the first, and that it does not."""
        return self._judge(self._encode(inputs, None)[0])[0]

    def _encode(
        self, inputs: np.ndarray, starts: np.ndarray | None
    ) -> tuple[np.ndarray, Callable[[np.ndarray, Arrays], None]]:
        """Tokens -> the residual stream behind the last block (B, T, W)."""
        x, embed_backward = self.family.embed(self, inputs, starts)  # (B, T, W)
        documents = None if starts is None else visible(starts, point=self.point, dtype=self.parameter_dtype)
        rotation = self.family.rotations(self, inputs, starts)
        passed: list[_Backward] = []
        for block in (f"block{layer}" for layer in range(self.point.num_layers)):
            attend = partial(self._attention, rotation=rotation, documents=documents)
            mlp = partial(self.family.mlp, self)
            for half, norm, part in (("attention", "norm1", attend), ("mlp", "norm2", mlp)):
                adapted = partial(self._adapted, part, name=f"{block}.{half}")
                x, half_backward = self._add(x, adapted, f"{block}.{norm}")
                passed.append(half_backward)

        def backward(d: np.ndarray, gradients: Arrays) -> None:
            for half_backward in reversed(passed):
                d = half_backward(d, gradients)
            embed_backward(d, gradients)

        return x, backward

    def _judge(self, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
        """What `_encode` yields -> logits (B, 2) of a pair's class."""
        pooled, pool_backward = self.family.pool(self, x, None, None)
        logits, linear_backward = self.linear(pooled, "next_sentence")
        return logits, lambda d, gradients: pool_backward(linear_backward(d, gradients), gradients)

    def _read(
        self, x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None
    ) -> tuple[np.ndarray, _Backward]:
        """What `_encode` yields -> what is projected (B, T, W), or (samples, W)."""
        return self.family.pool(self, x, starts, places) if self.point.labels_samples else self.family.finish(self, x)

    def _project(self, x: np.ndarray) -> tuple[np.ndarray, _Backward]:
        """What `_read` yields -> logits (B, T, V), (B, T, tags) or (B, classes)."""
        if self.point.predicts_labels:
            return self.linear(x, "classifier")
        name, bias = "token_embedding" if self.point.tied_embeddings else "output_embedding", "output.bias"
        x, embedding = self.round(x), self.round(self.parameters[name])
        logits = self.round(multiply_by_rows(x, embedding, gemm=self.point.gemm))
        if bias in self.parameters:
            logits = logits + self.parameters[bias]

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            if bias in self.parameters:
                gradients[bias] = _rows(d).sum(axis=0)
            d = self.round(d)
            gradients[name] = self.round(_rows(d).T @ _rows(x))
            return self.round(d @ embedding)

        return logits, backward

    def _compare(self, logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean loss against what was asked, and its gradient."""
        if not self.point.is_regression:
            return _cross_entropy(logits, targets)
        errors = logits[:, 0] - targets.astype(self.parameter_dtype)
        return float(np.square(errors).mean()), 2 * errors[:, None] / len(errors)

    def _add(
        self, x: np.ndarray, part: Callable[[np.ndarray], tuple[np.ndarray, _Backward]], name: str
    ) -> tuple[np.ndarray, _Backward]:
        """The residual stream and half a block of it, with the norm `name` of their sum, or of what that half reads."""
        if self.traits.norms_sums:
            value, part_backward = part(x)
            normal, norm_backward = self.family.norm(self, x + value, name)

            def backward_behind(d: np.ndarray, gradients: Arrays) -> np.ndarray:
                d = norm_backward(d, gradients)
                return d + part_backward(d, gradients)

            return normal, backward_behind
        normal, norm_backward = self.family.norm(self, x, name)
        value, part_backward = part(normal)
        return x + value, lambda d, gradients: d + norm_backward(part_backward(d, gradients), gradients)

    def _adapted(
        self, part: Callable[..., tuple[np.ndarray, _Backward]], x: np.ndarray, *, name: str
    ) -> tuple[np.ndarray, _Backward]:
        """Half a block, and the adapter behind it."""
        value, part_backward = part(x, name=name)
        value, adapter_backward = self.adapt(value, f"{name}.adapter")
        return value, lambda d, gradients: part_backward(adapter_backward(d, gradients), gradients)

    def _attention(
        self, x: np.ndarray, *, name: str, rotation: np.ndarray | None, documents: np.ndarray | None
    ) -> tuple[np.ndarray, _Backward]:
        B, T, W = x.shape
        qkv, qkv_backward = self.linear(x, f"{name}.qkv")
        (q, k, v), split_backward = self.family.split_heads(self, qkv, rotation)  # each (B, H, T, Q)
        (k, v), prefix_backward = self.prefix(k, v, name)
        choices = {"point": self.point, "rate": 0.0, "seed": None, "documents": documents}
        heads, attention_backward = attention(q, k, v, **choices)
        heads = heads.transpose(0, 2, 1, 3).reshape(B, T, W)
        out, out_backward = self.linear(heads, f"{name}.out")

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d_heads = out_backward(d, gradients).reshape(B, T, q.shape[1], -1).transpose(0, 2, 1, 3)
            d_q, d_k, d_v = attention_backward(d_heads)
            return qkv_backward(split_backward(d_q, *prefix_backward(d_k, d_v, gradients)), gradients)

        return out, backward


def _hide_class(targets: np.ndarray) -> np.ndarray:
    """Targets (B, T) of pairs of texts without the first, the pair's class."""
    return np.concatenate([np.full_like(targets[:, :1], IGNORED), targets[:, 1:]], axis=1)


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy, in nats, of logits (..., V) against targets (...) that are not IGNORED; and its gradient. Overwrites the logits."""
    logits -= logits.max(axis=-1, keepdims=True)
    counts, places = (targets != IGNORED)[..., None], np.maximum(targets, 0)[..., None]
    chosen = np.take_along_axis(logits, places, axis=-1)
    probabilities = np.exp(logits, out=logits)
    sums = probabilities.sum(axis=-1, keepdims=True)
    loss = float((np.log(sums) - chosen)[counts].mean())
    d = probabilities / sums
    np.put_along_axis(d, places, np.take_along_axis(d, places, axis=-1) - 1, axis=-1)
    return loss, d * counts / int(counts.sum())
