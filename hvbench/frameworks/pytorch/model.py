"""The GPT-2 decoder in PyTorch: pre-norm, learned positions, GELU, tied embeddings (Radford et al., 2019).

With the objective `masked_lm` it is an encoder: every position attends to all others. A classifier projects the mean
over all positions. Which dtype each tensor has is said in `hvbench.spec.numerics`.

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.devices import missing_rows
from hvbench.frameworks.pytorch.attention import attention, visible
from hvbench.frameworks.pytorch.execution import compiled, recomputed
from hvbench.frameworks.pytorch.runtime import DTYPES
from hvbench.records.environment import multiplies_natively
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.dropout import Seed
from hvbench.training.loss_chunks import loss_chunk
from hvbench.training.masking import IGNORED

_CACHED_BYTES = 1 << 20  # of logits, over which a processor goes several times: the cache of a core holds them
_LEAST_ROWS = 8


class Model:
    """The parameters by canonical name (`hvbench.training.weights`), and the forward pass."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        self.point = point
        self.parameter_dtype = DTYPES[precision.parameter_dtype]
        self.compute_dtype = DTYPES[precision.compute_dtype]
        self.is_native = multiplies_natively(precision.compute_dtype, device=device)
        # Rows of zeros below the output projection.
        self.padding = missing_rows(point.vocab_size, dtype=precision.product_dtype, device=device)
        self.loss_chunk = loss_chunk(point, device=device)
        self.parameters = {
            name: torch.nn.Parameter(torch.tensor(value, dtype=self.parameter_dtype, device=device))
            for name, value in weights.items()
        }
        self._compiled_loss = compiled(self._loss, choice=point.compile, device=device)

    def logits(
        self, inputs: torch.Tensor, *, starts: torch.Tensor | None = None, seed: Seed | None = None
    ) -> torch.Tensor:
        """Tokens [B, T] -> logits [B, T, V], or [B, classes], in the parameters' dtype; dropout is on where a seed is given.

        `starts` [B, T] of `hvbench.training.layout.Layout`, where rows hold documents.
        """
        return self._logits(inputs, starts, self._start_dropout(seed))

    def loss(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        starts: torch.Tensor | None = None,
        seed: Seed | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy, in nats, of tokens [B, T] against targets [B, T] that are not IGNORED, or classes [B]."""
        return self._compiled_loss(inputs, targets, starts, self._start_dropout(seed))

    def sample_losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, *, starts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean cross-entropy [B] of each sample, as `loss` takes it over all of them, without dropout."""
        x, rows, flat = self._features(inputs, starts, 0.0), len(targets), targets.reshape(-1)
        chunk = self.loss_chunk or len(flat)
        parts = zip(x.flatten(end_dim=-2).split(chunk), flat.split(chunk), strict=True)
        losses = [F.cross_entropy(self._project(part), t, ignore_index=IGNORED, reduction="none") for part, t in parts]
        losses = torch.cat(losses).view(rows, -1)  # 0 where IGNORED
        return losses.sum(dim=1) / (targets != IGNORED).view(rows, -1).sum(dim=1)

    def _start_dropout(self, seed: Seed | None) -> float:
        """The rate of dropout; its masks follow from the seed, without one there is none."""
        if seed is None:
            return 0.0
        torch.manual_seed(seed[0] << 31 | seed[1])
        return self.point.dropout

    def _loss(
        self, inputs: torch.Tensor, targets: torch.Tensor, starts: torch.Tensor | None, rate: float
    ) -> torch.Tensor:
        x, targets = self._features(inputs, starts, rate), targets.reshape(-1)
        if not self.loss_chunk:
            return F.cross_entropy(self._project(x).flatten(end_dim=-2), targets, ignore_index=IGNORED)
        return _ChunkedCrossEntropy.apply(x.flatten(end_dim=-2), self._output_embedding(), targets, self)

    def _logits(self, inputs: torch.Tensor, starts: torch.Tensor | None, rate: float) -> torch.Tensor:
        return self._project(self._features(inputs, starts, rate))

    def _features(self, inputs: torch.Tensor, starts: torch.Tensor | None, rate: float) -> torch.Tensor:
        """Tokens [B, T] -> what the output projection multiplies [B, T, W], or [B, W]."""
        p = self.parameters
        x = F.embedding(inputs, p["token_embedding"]) + self._positions(inputs, starts)  # [B, T, W]
        x = F.dropout(x, rate)
        dtype = self.compute_dtype if self.is_native else self.parameter_dtype
        documents = None if starts is None else visible(starts, point=self.point, dtype=dtype)
        for layer in range(self.point.num_layers):
            x = self._block(x, layer, rate, documents)
        if self.point.is_classifier:
            return self._pooled_norm(x, "final_norm")
        return self._round(self._layer_norm(x, "final_norm"))

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """What `_features` yields [..., W] -> logits [..., V], or [..., classes], in the parameters' dtype."""
        if self.point.is_classifier:
            return self._linear(x, "classifier").to(self.parameter_dtype)
        embedding = self._output_embedding().t()
        logits = _OneDnnLinear.apply(x, embedding, None) if self.point.gemm == "onednn" else x @ embedding
        if self.padding:
            logits = logits[..., : self.point.vocab_size]
        return self._round(logits).to(self.parameter_dtype)

    def _output_embedding(self) -> torch.Tensor:
        """The token embedding [V, W] as it is multiplied: rounded, and with the rows of zeros."""
        embedding = self._round(self.parameters["token_embedding"])
        return F.pad(embedding, (0, 0, 0, self.padding)) if self.padding else embedding

    def _positions(self, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
        """The learned positions [T, W], or those that begin anew with each document [B, T, W]."""
        T, embedding = inputs.shape[1], self.parameters["position_embedding"]
        if starts is None:
            return embedding[:T]
        return F.embedding(torch.arange(T, device=inputs.device) - starts, embedding)

    def _block(self, x: torch.Tensor, layer: int, rate: float, documents: torch.Tensor | None) -> torch.Tensor:
        """Attention, then the MLP, each added to the residual stream [B, T, W]; what the point names is recomputed."""

        def attend(x: torch.Tensor) -> torch.Tensor:
            normal = self._layer_norm(x, f"block{layer}.norm1")
            heads = self._attention(normal, f"block{layer}.attention", rate, documents)
            return x + F.dropout(heads, rate)

        def run(x: torch.Tensor) -> torch.Tensor:
            x = recomputed(attend, is_random=rate > 0)(x) if self.point.recompute == "attention" else attend(x)
            return x + F.dropout(self._mlp(self._layer_norm(x, f"block{layer}.norm2"), f"block{layer}.mlp"), rate)

        return recomputed(run, is_random=rate > 0)(x) if self.point.recompute == "block" else run(x)

    def _attention(self, x: torch.Tensor, name: str, rate: float, documents: torch.Tensor | None) -> torch.Tensor:
        B, T, W = x.shape
        H = self.point.num_heads
        qkv = self._linear(x, f"{name}.qkv").view(B, T, 3, H, W // H)
        # Not q, k, v = qkv[0], …: the gradient of every index is a tensor of qkv's size, mostly zeros.
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each [B, H, T, Q]
        choices = {"point": self.point, "rate": rate, "seed": None, "documents": documents}
        heads = attention(q, k, v, **choices)  # [B, H, T, Q]
        return self._linear(heads.transpose(1, 2).reshape(B, T, W), f"{name}.out")

    def _mlp(self, x: torch.Tensor, name: str) -> torch.Tensor:
        form = "tanh" if self.point.activation == "gelu_tanh" else "none"
        return self._linear(F.gelu(self._linear(x, f"{name}.up"), approximate=form), f"{name}.down")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self._round(self.parameters[f"{name}.weight"])  # [in, out]
        bias = self._round(self.parameters[f"{name}.bias"])
        if self.point.gemm == "onednn":
            return self._round(_OneDnnLinear.apply(self._round(x), weight, bias))
        return self._round(F.linear(self._round(x), weight.t(), bias))

    def _layer_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gain, bias = self.parameters[f"{name}.gain"], self.parameters[f"{name}.bias"]
        return F.layer_norm(x, (x.shape[-1],), gain, bias, eps=1e-5)

    def _pooled_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """The mean over positions of `_layer_norm`: [B, T, W] -> [B, W].

        Gain and bias are applied after the mean, so that their gradients are sums of B rows. Before the mean they would be
        sums of B·T rows of which T at a time are equal, and float32 rounding errors of such a sum all go the same way.
        """
        normal = F.layer_norm(x, (x.shape[-1],), eps=1e-5)
        return normal.mean(dim=1) * self.parameters[f"{name}.gain"] + self.parameters[f"{name}.bias"]

    def _round(self, x: torch.Tensor) -> torch.Tensor:
        """Cast to the compute dtype; where the processor cannot multiply in it, rounded to it in the parameters' dtype."""
        rounded = x.to(self.compute_dtype)
        return rounded if self.is_native else rounded.to(self.parameter_dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of x [N, W] × transposed embedding [V, W] against targets [N] that are not IGNORED.

    Logits exist for a chunk of tokens at a time. Its gradients are computed at once, softmax less one-hot in the place of the
    logits, and wait to be multiplied by the gradient of the loss: nothing is computed twice, and nothing of V values a token kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, embedding: torch.Tensor, targets: torch.Tensor, model: Model
    ) -> torch.Tensor:
        gemm, wide = model.point.gemm, model.parameter_dtype
        counts = targets != IGNORED
        total = torch.zeros((), dtype=wide, device=x.device)
        d_x, d_embedding = torch.empty_like(x), None
        for start in range(0, len(x), model.loss_chunk):
            rows = slice(start, start + model.loss_chunk)
            logits = multiply(x[rows], embedding, transposed="right", gemm=gemm)
            total += _cross_entropy(logits, targets[rows, None], counts[rows, None], model)
            d_x[rows] = multiply(logits, embedding, transposed="none", gemm=gemm)
            more = multiply(logits, x[rows], transposed="left", gemm=gemm)
            d_embedding = more.to(wide) if d_embedding is None else d_embedding.add_(more)
        ctx.save_for_backward(d_x, d_embedding)
        ctx.count = counts.sum()
        return total / ctx.count

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        d_x, d_embedding = ctx.saved_tensors
        factor = gradient / ctx.count
        return (d_x * factor).to(d_x.dtype), (d_embedding * factor).to(d_x.dtype), None, None


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor, model: Model) -> torch.Tensor:
    """The summed cross-entropy of logits [N, V] against targets [N, 1] that `counts`; their gradients take the logits' place."""
    total = torch.zeros((), dtype=model.parameter_dtype, device=logits.device)
    row_bytes = logits.shape[1] * total.element_size()
    at_once = max(_LEAST_ROWS, _CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else len(logits)
    for part, chosen, counted in zip(
        *(each.split(at_once) for each in (logits, targets.clamp(min=0), counts)), strict=True
    ):
        values = model._round(part).to(model.parameter_dtype)
        values[:, model.point.vocab_size :] = -torch.inf
        values -= values.amax(dim=1, keepdim=True)
        at_target = values.gather(1, chosen)
        sums = values.exp_().sum(dim=1, keepdim=True)
        total += ((sums.log() - at_target) * counted).sum()
        values *= counted / sums
        values.scatter_add_(1, chosen, -counted.to(values.dtype))
        part.copy_(model._round(values))
    return total


def multiply(left: torch.Tensor, right: torch.Tensor, *, transposed: str, gemm: str) -> torch.Tensor:
    """One matrix product, as linear layers and logits do it; see `hvbench.training.products.Product` for `transposed`."""
    left = left.t() if transposed == "left" else left
    right = right.t() if transposed == "right" else right
    return _multiply_in_onednn(left, right) if gemm == "onednn" else left @ right


class _OneDnnLinear(torch.autograd.Function):
    """x [..., in], weight [in, out], bias [out] or None -> [..., out], with oneDNN's products forward and backward.

    PyTorch multiplies fp32 matrices on a CPU with MKL, on every processor, and uses oneDNN in compiled models only.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _multiply_in_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, d_rows = x.flatten(end_dim=-2), gradient.flatten(end_dim=-2)
        if weight.is_contiguous():
            d_weight = _multiply_in_onednn(rows.t(), d_rows)
        else:  # the logits: their weight is the transposed embedding, whose memory order the gradient should have
            d_weight = _multiply_in_onednn(d_rows.t(), rows).t()
        return _multiply_in_onednn(gradient, weight.t()), d_weight, d_rows.sum(0) if ctx.has_bias else None


def _multiply_in_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], "")
