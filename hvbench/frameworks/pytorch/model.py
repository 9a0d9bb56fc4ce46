"""The transformer in PyTorch: blocks of attention and MLP, each with a norm, and the loss; `families` has what those are made of.

With the objective `masked_lm` it is an encoder: every position attends to all others. A classifier projects what its family
pools. Which dtype each tensor has is said in `hvbench.spec.numerics`.

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.devices import missing_rows
from hvbench.frameworks.pytorch.adaptation import AdaptedLayers
from hvbench.frameworks.pytorch.attention import attention, visible
from hvbench.frameworks.pytorch.execution import compiled, recomputed
from hvbench.frameworks.pytorch.families import FAMILIES
from hvbench.frameworks.pytorch.layers import multiply, multiply_by_rows
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.dropout import Seed
from hvbench.training.loss_chunks import loss_chunk
from hvbench.training.masking import IGNORED

_CACHED_BYTES = 1 << 20  # of logits, over which a processor goes several times: the cache of a core holds them
_LEAST_ROWS = 8


class Model(AdaptedLayers):
    """The parameters by canonical name (`hvbench.training.weights`), and the forward pass."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        super().__init__(point, weights, precision=precision, device=device)
        self.family = FAMILIES[point.family]
        # Rows of zeros below the output projection.
        self.padding = missing_rows(point.vocab_size, dtype=precision.product_dtype, device=device)
        self.loss_chunk = loss_chunk(point, device=device)
        self._compiled_loss = compiled(self._loss, choice=point.compile, device=device)

    def logits(
        self,
        inputs: torch.Tensor,
        *,
        starts: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        seed: Seed | None = None,
    ) -> torch.Tensor:
        """Tokens [B, T] -> logits [B, T, V], [B, T, tags] or [samples, classes], in the parameters' dtype; dropout is on where a seed is given.

        `starts` [B, T] and `places` [samples] of `hvbench.training.layout.Layout`, where rows hold documents, and each several samples.
        """
        return self._project(self._features(inputs, starts, places, self._start_dropout(seed)))

    def loss(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        starts: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        seed: Seed | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy, in nats, of tokens [B, T] against targets [B, T] that are not IGNORED, or classes [samples]; squared error of numbers.

        Of pairs of texts (`hvbench.training.pairs`) the first target is the pair's class, whose mean cross-entropy is added.
        """
        return self._compiled_loss(inputs, targets, starts, places, self._start_dropout(seed))

    def sample_losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, *, starts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean cross-entropy, or squared error, [B] of each sample, as `loss` takes it over all of them, without dropout and without classes of pairs."""
        targets = _hide_class(targets) if self.point.judges_pairs else targets
        x, rows, flat = self._features(inputs, starts, None, 0.0), len(targets), targets.reshape(-1)
        if self.point.is_regression:
            return (self._project(x)[:, 0] - flat.to(self.parameter_dtype)).square()
        chunk = self.loss_chunk or len(flat)
        parts = zip(x.flatten(end_dim=-2).split(chunk), flat.split(chunk), strict=True)
        with self.hold(self._head_name, x):
            losses = [
                F.cross_entropy(self._project(part), t, ignore_index=IGNORED, reduction="none") for part, t in parts
            ]
        losses = torch.cat(losses).view(rows, -1)  # 0 where IGNORED
        return losses.sum(dim=1) / (targets != IGNORED).view(rows, -1).sum(dim=1)

    def next_sentence_logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pairs of texts [B, T] -> logits [B, 2] that the second follows the first, and that it does not; without dropout."""
        return self._judge(self._encode(inputs, None, 0.0))

    def _start_dropout(self, seed: Seed | None) -> float:
        """The rate of dropout; its masks follow from the seed, without one there is none."""
        if seed is None:
            return 0.0
        torch.manual_seed(seed[0] << 31 | seed[1])
        return self.point.dropout

    def _loss(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        starts: torch.Tensor | None,
        places: torch.Tensor | None,
        rate: float,
    ) -> torch.Tensor:
        x = self._encode(inputs, starts, rate)
        if not self.point.judges_pairs:
            return self._mean_cross_entropy(self._read(x, starts, places, rate), targets)
        classes = F.cross_entropy(self._judge(x), targets[:, 0])
        return self._mean_cross_entropy(self._read(x, starts, places, rate), _hide_class(targets)) + classes

    def _mean_cross_entropy(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of what `_features` yields against targets [B, T] or [B]; of numbers [B] the mean squared error."""
        targets = targets.reshape(-1)
        if self.point.is_regression:
            return F.mse_loss(self._project(x)[:, 0], targets.to(self.parameter_dtype))
        if not self.loss_chunk:
            logits = self._project(x).flatten(end_dim=-2)
            losses = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")  # 0 where IGNORED
            return _sum(losses).to(losses.dtype) / (targets != IGNORED).sum()
        with self.hold(self._head_name, x):
            bias = self.parameters.get("output.bias")
            return _ChunkedCrossEntropy.apply(x.flatten(end_dim=-2), self._output_embedding(), bias, targets, self)

    def _features(
        self, inputs: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None, rate: float
    ) -> torch.Tensor:
        """Tokens [B, T] -> what the output projection multiplies [B, T, W], or [samples, W]."""
        return self._read(self._encode(inputs, starts, rate), starts, places, rate)

    def _encode(self, inputs: torch.Tensor, starts: torch.Tensor | None, rate: float) -> torch.Tensor:
        """Tokens [B, T] -> the residual stream behind the last block [B, T, W]."""
        x = self.family.embed(self, inputs, starts)  # [B, T, W]
        x = F.dropout(x, rate)
        dtype = self.compute_dtype if self.is_native else self.parameter_dtype
        if starts is None and self.point.num_prefixes and self.point.is_causal:
            starts_of_mask = torch.zeros_like(inputs[:1])  # one document: the mask lets all see the prefixes
            documents = visible(starts_of_mask, point=self.point, dtype=dtype)
        else:
            documents = None if starts is None else visible(starts, point=self.point, dtype=dtype)
        rotation = self.family.rotations(self, inputs, starts)
        for layer in range(self.point.num_layers):
            x = self._block(x, layer, rate, documents, rotation)
        return x

    def _read(
        self, x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None, rate: float
    ) -> torch.Tensor:
        """What `_encode` yields -> what `_features` does."""
        if self.point.labels_samples:
            x = self.family.pool(self, x, starts, places)
        else:
            x = self.round(self.family.finish(self, x))
        return F.dropout(x, rate) if self.point.predicts_labels and self.traits.has_heads else x

    def _judge(self, x: torch.Tensor) -> torch.Tensor:
        """What `_encode` yields -> logits [B, 2] of a pair's class."""
        return self.linear(self.family.pool(self, x, None, None), "next_sentence").to(self.parameter_dtype)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """What `_features` yields [..., W] -> logits [..., V], or [..., classes], in the parameters' dtype."""
        if self.point.predicts_labels:
            return self.linear(x, "classifier").to(self.parameter_dtype)
        logits = multiply_by_rows(x, self._output_embedding(), gemm=self.point.gemm)
        if self.padding:
            logits = logits[..., : self.point.vocab_size]
        logits, bias = self.round(logits).to(self.parameter_dtype), self.parameters.get("output.bias")
        return logits if bias is None else logits + bias

    def _output_embedding(self) -> torch.Tensor:
        """The output projection [V, W] as it is multiplied: rounded, and with the rows of zeros."""
        embedding = self.round(self.parameters[self._head_name])
        return F.pad(embedding, (0, 0, 0, self.padding)) if self.padding else embedding

    @property
    def _head_name(self) -> str:
        """What the name of the last projection's parameters begins with."""
        if self.point.predicts_labels:
            return "classifier."
        return "token_embedding" if self.point.tied_embeddings else "output_embedding"

    def _block(
        self, x: torch.Tensor, layer: int, rate: float, documents: torch.Tensor | None, rotation: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention, then the MLP, each added to the residual stream [B, T, W]; what the point names is recomputed."""
        name = f"block{layer}"

        def heads(x: torch.Tensor) -> torch.Tensor:
            more = F.dropout(self._attention(x, f"{name}.attention", rate, documents, rotation), rate)
            return self.adapt(more, f"{name}.attention.adapter")

        def mlp(x: torch.Tensor) -> torch.Tensor:
            return self.adapt(F.dropout(self.family.mlp(self, x, f"{name}.mlp"), rate), f"{name}.mlp.adapter")

        def attend(x: torch.Tensor) -> torch.Tensor:
            return self._add(x, heads, f"{name}.norm1")

        def run(x: torch.Tensor) -> torch.Tensor:
            with self.hold(f"{name}.", x):
                x = recomputed(attend, is_random=rate > 0)(x) if self.point.recompute == "attention" else attend(x)
                return self._add(x, mlp, f"{name}.norm2")

        return recomputed(run, is_random=rate > 0)(x) if self.point.recompute == "block" else run(x)

    def _add(self, x: torch.Tensor, half: Callable[[torch.Tensor], torch.Tensor], name: str) -> torch.Tensor:
        """The residual stream x [B, T, W] and half a block of it, with the norm `name` of their sum, or of what that half reads."""
        if self.traits.norms_sums:
            return self.family.norm(self, x + half(x), name)
        return x + half(self.family.norm(self, x, name))

    def _attention(
        self, x: torch.Tensor, name: str, rate: float, documents: torch.Tensor | None, rotation: torch.Tensor | None
    ) -> torch.Tensor:
        B, T, W = x.shape
        q, k, v = self.family.split_heads(self, self.linear(x, f"{name}.qkv"), rotation)  # each [B, H, T, Q]
        k, v = self.prefix(k, v, name)
        choices = {"point": self.point, "rate": rate, "seed": None, "documents": documents}
        heads = attention(q, k, v, **choices)  # [B, H, T, Q]
        return self.linear(heads.transpose(1, 2).reshape(B, T, W), f"{name}.out")


def _sum(losses: torch.Tensor) -> torch.Tensor:
    """The sum of losses in float64: a compiler may add one after the other."""
    return losses.sum(dtype=torch.float64)


def _hide_class(targets: torch.Tensor) -> torch.Tensor:
    """Targets [B, T] of pairs of texts without the first, the pair's class."""
    return F.pad(targets[:, 1:], (1, 0), value=IGNORED)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of x [N, W] × transposed embedding [V, W], plus a bias [V] or None, against targets [N] that are not IGNORED.

    Logits exist for a chunk of tokens at a time. Its gradients are computed at once, softmax less one-hot in the place of the
    logits, and wait to be multiplied by the gradient of the loss: nothing is computed twice, and nothing of V values a token kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        embedding: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        model: Model,
    ) -> torch.Tensor:
        gemm, wide = model.point.gemm, model.parameter_dtype
        counts = targets != IGNORED
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        needs_x, needs_embedding, needs_bias = ctx.needs_input_grad[:3]
        d_x, d_embedding = torch.empty_like(x) if needs_x else None, None
        d_bias = torch.zeros_like(bias) if needs_bias else None
        for start in range(0, len(x), model.loss_chunk):
            rows = slice(start, start + model.loss_chunk)
            logits = multiply(x[rows], embedding, transposed="right", gemm=gemm)
            total += _cross_entropy(logits, bias, d_bias, targets[rows, None], counts[rows, None], model)
            if needs_x:
                d_x[rows] = multiply(logits, embedding, transposed="none", gemm=gemm)
            if needs_embedding:
                more = multiply(logits, x[rows], transposed="left", gemm=gemm)
                d_embedding = more.to(wide) if d_embedding is None else d_embedding.add_(more)
        ctx.save_for_backward(d_x, d_embedding, d_bias)
        ctx.count, ctx.dtype = counts.sum(), x.dtype
        return total.to(wide) / ctx.count

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_x, d_embedding, d_bias = ctx.saved_tensors
        factor = gradient / ctx.count
        d_x, d_embedding = (None if d is None else (d * factor).to(ctx.dtype) for d in (d_x, d_embedding))
        return d_x, d_embedding, None if d_bias is None else d_bias * factor, None, None


def _cross_entropy(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    d_bias: torch.Tensor | None,
    targets: torch.Tensor,
    counts: torch.Tensor,
    model: Model,
) -> torch.Tensor:
    """The summed cross-entropy, in float64, of logits [N, V] plus a bias [V] against targets [N, 1] that `counts`.

    Gradients take the logits' place, and their sum is added to `d_bias` [V].
    """
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    row_bytes = logits.shape[1] * model.parameter_dtype.itemsize
    at_once = max(_LEAST_ROWS, _CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else len(logits)
    for part, chosen, counted in zip(
        *(each.split(at_once) for each in (logits, targets.clamp(min=0), counts)), strict=True
    ):
        values = model.round(part).to(model.parameter_dtype)
        if bias is not None:
            values[:, : model.point.vocab_size] += bias
        values[:, model.point.vocab_size :] = -torch.inf
        values -= values.amax(dim=1, keepdim=True)
        at_target = values.gather(1, chosen)
        sums = values.exp_().sum(dim=1, keepdim=True)
        total += _sum((sums.log() - at_target) * counted)
        values *= counted / sums
        values.scatter_add_(1, chosen, -counted.to(values.dtype))
        if d_bias is not None:
            d_bias += values[:, : model.point.vocab_size].sum(dim=0)
        part.copy_(model.round(values))
    return total
