"""The GPT-2 decoder in TensorFlow: pre-norm, learned positions, GELU, tied embeddings (Radford et al., 2019).

With the objective `masked_lm` it is an encoder: every position attends to all others. A classifier projects the mean
over all positions. Which dtype each tensor has is said in `hvbench.spec.numerics`.

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.devices import missing_rows
from hvbench.frameworks.tensorflow.attention import attention, visible
from hvbench.frameworks.tensorflow.execution import _with_gradient, recomputed
from hvbench.frameworks.tensorflow.runtime import DTYPES
from hvbench.records.environment import multiplies_natively
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.loss_chunks import loss_chunk
from hvbench.training.masking import IGNORED


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
        with tf.device("GPU:0" if device == "cuda" else "CPU:0"):
            self.parameters = {
                name: tf.Variable(value, dtype=self.parameter_dtype, name=name.replace(".", "_"))
                for name, value in weights.items()
            }

    def logits(self, inputs: tf.Tensor, *, starts: tf.Tensor | None = None, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Tokens [B, T] -> logits [B, T, V], or [B, classes], in the parameters' dtype; dropout is on where a seed is given.

        `starts` [B, T] of `hvbench.training.layout.Layout`, where rows hold documents.
        """
        return self._project(self._features(inputs, starts, seed))

    def loss(
        self,
        inputs: tf.Tensor,
        targets: tf.Tensor,
        *,
        starts: tf.Tensor | None = None,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Mean cross-entropy, in nats, of tokens [B, T] against targets [B, T] that are not IGNORED, or classes [B]."""
        x = self._features(inputs, starts, seed)
        if self.loss_chunk:
            chunked = _with_gradient(self._chunked_cross_entropy)
            return chunked(_rows(x), self._output_embedding(), tf.reshape(targets, (-1,)))
        logits = self._project(x)
        if not self.point.hides_tokens and starts is None:
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
        counts = tf.cast(targets != IGNORED, losses.dtype)
        return tf.reduce_sum(losses * counts) / tf.reduce_sum(counts)

    def sample_losses(self, inputs: tf.Tensor, targets: tf.Tensor, *, starts: tf.Tensor | None = None) -> tf.Tensor:
        """Mean cross-entropy [B] of each sample, as `loss` takes it over all of them, without dropout."""
        x, rows, flat = self._features(inputs, starts, None), targets.shape[0], tf.reshape(targets, (-1,))
        losses: list[tf.Tensor] = []
        for start, end in self._chunks(flat.shape[0]):
            with tf.control_dependencies(losses[-1:]):  # one after the other, as memory should be used
                logits = self._project(_rows(x)[None, start:end] if self.loss_chunk else x)
                logits = tf.reshape(logits, (end - start, -1))
                chosen = tf.maximum(flat[start:end], 0)
                losses.append(tf.nn.sparse_softmax_cross_entropy_with_logits(chosen, logits))
        counts = tf.reshape(tf.cast(targets != IGNORED, losses[0].dtype), (rows, -1))
        losses_of_rows = tf.reshape(tf.concat(losses, axis=0), (rows, -1))
        return tf.reduce_sum(losses_of_rows * counts, axis=1) / tf.reduce_sum(counts, axis=1)

    def _features(self, inputs: tf.Tensor, starts: tf.Tensor | None, seed: tf.Tensor | None) -> tf.Tensor:
        """Tokens [B, T] -> what the output projection multiplies [B, T, W], or [B, 1, W]."""
        p = self.parameters
        drop = _Dropout(self.point.dropout, seed)
        x = tf.gather(p["token_embedding"], inputs) + self._positions(inputs, starts)  # [B, T, W]
        x = drop(x)
        documents = None if starts is None else visible(starts, point=self.point, dtype=self.compute_dtype)
        for layer in range(self.point.num_layers):
            x = self._block(x, layer, drop, documents)
        if self.point.is_classifier:
            return self._pooled_norm(x, "final_norm")
        return self._round(self._layer_norm(x, "final_norm"))

    def _project(self, x: tf.Tensor) -> tf.Tensor:
        """What `_features` yields -> logits [..., V], or [B, classes], in the parameters' dtype."""
        if self.point.is_classifier:
            return self._widen(self._linear(x, "classifier"))[:, 0]
        logits = _multiply_by_rows(_rows(x), self._output_embedding())
        logits = tf.reshape(logits, (*x.shape[:2], logits.shape[-1]))
        if self.padding:
            logits = logits[..., : self.point.vocab_size]
        return self._widen(self._round(logits))

    def _output_embedding(self) -> tf.Tensor:
        """The token embedding [V, W] as it is multiplied: rounded, and with the rows of zeros."""
        embedding = self._round(self.parameters["token_embedding"])
        return tf.pad(embedding, ((0, self.padding), (0, 0))) if self.padding else embedding

    def _chunks(self, tokens: int) -> list[tuple[int, int]]:
        """The first token of each chunk, and the one after its last."""
        size = self.loss_chunk or tokens
        return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]

    def _chunked_cross_entropy(self, x: tf.Tensor, embedding: tf.Tensor, targets: tf.Tensor):
        """Mean cross-entropy of x [N, W] × transposed embedding [V, W] against targets [N] that are not IGNORED, and its gradient.

        Logits exist for a chunk of tokens at a time. Its gradients are computed at once, softmax less one-hot, and wait to be
        multiplied by the gradient of the loss: nothing is computed twice, and nothing of V values a token kept.
        """
        vocabulary = self.point.vocab_size
        counts = tf.cast(targets != IGNORED, self.parameter_dtype)
        total, d_embedding = tf.zeros((), self.parameter_dtype), None
        parts: list[tf.Tensor] = []
        for start, end in self._chunks(x.shape[0]):
            with tf.control_dependencies([parts[-1], d_embedding] if parts else []):  # one after the other
                rows, chosen = x[start:end], tf.maximum(targets[start:end], 0)
                logits = self._widen(self._round(tf.matmul(rows, embedding, transpose_b=True)[:, :vocabulary]))
                losses, d_logits = _cross_entropy(logits, chosen)
                if self.point.hides_tokens or self.point.separates_documents:
                    losses, d_logits = losses * counts[start:end], d_logits * counts[start:end, None]
                total += tf.reduce_sum(losses)
                d_logits = self._round(d_logits)
                if self.padding:
                    d_logits = tf.pad(d_logits, ((0, 0), (0, self.padding)))
                parts.append(tf.matmul(d_logits, embedding))
                more = self._widen(_product_over_rows(d_logits, rows))
                d_embedding = more if d_embedding is None else d_embedding + more
        d_x, count = tf.concat(parts, axis=0), tf.reduce_sum(counts)

        def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
            factor = gradient / count
            return tf.cast(self._widen(d_x) * factor, x.dtype), tf.cast(d_embedding * factor, embedding.dtype), None

        return total / count, backward

    def _positions(self, inputs: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor:
        """The learned positions [T, W], or those that begin anew with each document [B, T, W]."""
        T, embedding = inputs.shape[1], self.parameters["position_embedding"]
        if starts is None:
            return embedding[:T]
        return tf.gather(embedding, tf.range(T) - starts)

    def _block(self, x: tf.Tensor, layer: int, drop: _Dropout, documents: tf.Tensor | None) -> tf.Tensor:
        """Attention, then the MLP, each added to the residual stream [B, T, W]; what the point names is recomputed."""
        calls = drop.calls

        def attend(x: tf.Tensor) -> tf.Tensor:
            drop.calls = calls  # the masks of the first time, whenever this runs
            normal = self._layer_norm(x, f"block{layer}.norm1")
            heads = self._attention(normal, f"block{layer}.attention", drop, documents)
            return x + drop(heads)

        def run(x: tf.Tensor) -> tf.Tensor:
            x = recomputed(attend, is_random=drop.rate > 0)(x) if self.point.recompute == "attention" else attend(x)
            return x + drop(self._mlp(self._layer_norm(x, f"block{layer}.norm2"), f"block{layer}.mlp"))

        return recomputed(run, is_random=drop.rate > 0)(x) if self.point.recompute == "block" else run(x)

    def _attention(self, x: tf.Tensor, name: str, drop: _Dropout, documents: tf.Tensor | None) -> tf.Tensor:
        B, T, W = x.shape
        H = self.point.num_heads
        qkv = tf.reshape(self._linear(x, f"{name}.qkv"), (B, T, 3, H, W // H))
        q, k, v = tf.unstack(tf.transpose(qkv, (2, 0, 3, 1, 4)))  # each [B, H, T, Q]
        choices = {"point": self.point, "rate": drop.rate, "seed": drop.next_seed(), "documents": documents}
        heads = attention(q, k, v, **choices)  # [B, H, T, Q]
        heads = tf.transpose(heads, (0, 2, 1, 3))  # [B, T, H, Q]
        return self._widen(self._linear(tf.reshape(heads, (B, T, W)), f"{name}.out"))

    def _mlp(self, x: tf.Tensor, name: str) -> tf.Tensor:
        # GELU is computed in the parameters' dtype: TensorFlow would round after every elementwise operation, where PyTorch's
        # fused kernel rounds once.
        gelu = _gelu_tanh if self.point.activation == "gelu_tanh" else _gelu
        up = gelu(self._widen(self._linear(x, f"{name}.up")))
        return self._widen(self._linear(up, f"{name}.down"))

    def _linear(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """x [B, T, in] -> [B, T, out] in the compute dtype."""
        B, T, _ = x.shape
        weight = self._round(self.parameters[f"{name}.weight"])  # [in, out]
        bias = self._widen(self._round(self.parameters[f"{name}.bias"]))
        y = _with_gradient(self._affine)(_rows(self._round(x)), weight, bias)
        return tf.reshape(y, (B, T, y.shape[-1]))

    def _affine(self, x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor):
        """x [N, in] × weight [in, out] + bias [out], and its gradient.

        The bias is added, and its gradient summed, in the parameters' dtype, for the same reason as GELU.
        """

        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dy = self._round(dy)
            d_bias = tf.raw_ops.BiasAddGrad(out_backprop=self._widen(dy))
            return tf.matmul(dy, weight, transpose_b=True), _product_over_rows(x, dy), d_bias

        return self._round(tf.nn.bias_add(self._widen(tf.matmul(x, weight)), bias)), backward

    def _layer_norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        gain, bias = self.parameters[f"{name}.gain"], self.parameters[f"{name}.bias"]
        return _normalize(x, tf.convert_to_tensor(gain), tf.convert_to_tensor(bias))

    def _pooled_norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """The mean over positions of `_layer_norm`: [B, T, W] -> [B, 1, W].

        Gain and bias are applied after the mean, so that their gradients are sums of B rows. Before the mean they would be
        sums of B·T rows of which T at a time are equal, and float32 rounding errors of such a sum all go the same way.
        """
        normal = tf.reduce_mean(_standardize(x), axis=1, keepdims=True)
        return normal * self.parameters[f"{name}.gain"] + self.parameters[f"{name}.bias"]

    def _round(self, x: tf.Tensor) -> tf.Tensor:
        """Cast to the compute dtype; where the processor cannot multiply in it, rounded to it in the parameters' dtype."""
        rounded = tf.cast(x, self.compute_dtype)
        return rounded if self.is_native else tf.cast(rounded, self.parameter_dtype)

    def _widen(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x, self.parameter_dtype)


class _Dropout:
    """Dropout, with another seed at every call, derived from the pass's seed [2]; the identity without a seed."""

    def __init__(self, rate: float, seed: tf.Tensor | None) -> None:
        self.rate = rate if seed is not None else 0.0
        self.seed = seed
        self.calls = 0

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        seed = self.next_seed()
        return x if seed is None else tf.nn.experimental.stateless_dropout(x, self.rate, seed=seed)

    def next_seed(self) -> tf.Tensor | None:
        """The seed [2] of another mask; None where nothing is dropped."""
        if not self.rate:
            return None
        self.calls += 1
        return self.seed + (0, self.calls)


def multiply(left: tf.Tensor, right: tf.Tensor, *, transposed: str, gemm: str) -> tf.Tensor:
    """One matrix product, as linear layers and logits do it; see `hvbench.training.products.Product` for `transposed`.

    `gemm` is for PyTorch: TensorFlow has one library for each product.
    """
    if transposed == "left":
        return _product_over_rows(left, right)
    return tf.matmul(left, right, transpose_b=transposed == "right")


# GELU and layer norm with their gradients written out, which saves passes over memory: TensorFlow has no fused CPU kernels
# for them.


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


def _cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Losses [N] of logits [N, V] against targets [N], and their gradients [N, V]: what TensorFlow's own operation yields.

    That takes 2.7 times as long, of which the softmax is a small part here (docs/measurements.md). The logarithm of a row's sum is that
    of its largest probability, which no other can make vanish.
    """
    places = tf.stack([tf.range(tf.shape(targets)[0]), targets], axis=1)
    probabilities = tf.nn.softmax(logits)
    log_sums = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(probabilities, axis=1))
    losses, ones = log_sums - tf.gather_nd(logits, places), tf.ones_like(targets, logits.dtype)
    with tf.control_dependencies([losses]):  # then nothing else reads the probabilities, and gradients take their place
        return losses, tf.tensor_scatter_nd_sub(probabilities, places, ones)


def _standard(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """(x - mean) / standard deviation over the last dimension, and the function from its gradient to the gradient of x."""
    last = tf.constant(-1)  # the same tensor for all sums: each operation less is traced and optimized sooner
    centred = x - tf.reduce_mean(x, axis=last, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=last, keepdims=True) + 1e-5)
    normal = centred * inverse

    def backward(d: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(d, axis=last, keepdims=True)
        slope = tf.reduce_mean(d * normal, axis=last, keepdims=True)
        return inverse * (d - mean - normal * slope)

    return normal, backward


_standardize = _with_gradient(_standard)


@_with_gradient
def _normalize(x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor):
    """Layer norm of x [B, T, W] over W (Ba, Kiros & Hinton, arXiv:1607.06450)."""
    normal, standard_backward = _standard(x)

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows = tf.constant((0, 1))
        return standard_backward(dy * gain), tf.reduce_sum(dy * normal, axis=rows), tf.reduce_sum(dy, axis=rows)

    return normal * gain + bias, backward


def _rows(x: tf.Tensor) -> tf.Tensor:
    """[B, T, W] -> [B · T, W]."""
    return tf.reshape(x, (-1, x.shape[-1]))


@_with_gradient
def _multiply_by_rows(x: tf.Tensor, weight: tf.Tensor):
    """x [N, in] × transposed weight [out, in]; two-dimensional, as all products, which oneDNN runs faster than batched ones."""

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.matmul(dy, weight), _product_over_rows(dy, x)

    return tf.matmul(x, weight, transpose_b=True), backward


def _product_over_rows(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Transposed a [N, p] × b [N, q].

    Eigen reads columns here. Where the row length is a large power of two, the values of a column map to few cache sets,
    which halves the speed; such rows are padded first.
    """
    padded_a, padded_b = _pad_rows(a), _pad_rows(b)
    product = tf.matmul(padded_a, padded_b, transpose_a=True)
    is_padded = padded_a is not a or padded_b is not b
    return product[: a.shape[1], : b.shape[1]] if is_padded else product


def _pad_rows(x: tf.Tensor) -> tf.Tensor:
    """Matrix x with one cache line of zeros after each row where rows have 4096 · 2^n bytes; else x.

    In 16 bits oneDNN does not profit from it.
    """
    row_bytes = x.shape[1] * x.dtype.size
    maps_to_few_sets = row_bytes >= 4096 and row_bytes & (row_bytes - 1) == 0 and x.dtype.size >= 4
    return tf.pad(x, ((0, 0), (0, 64 // x.dtype.size))) if maps_to_few_sets else x
