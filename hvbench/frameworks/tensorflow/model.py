"""The transformer in TensorFlow: blocks of attention and MLP, each with a norm, and the loss; `families` has what those are made of.

With the objective `masked_lm` it is an encoder: every position attends to all others. A classifier projects what its family
pools. Which dtype each tensor has is said in `hvbench.spec.numerics`.

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.devices import missing_rows
from hvbench.frameworks.tensorflow.adaptation import AdaptedLayers
from hvbench.frameworks.tensorflow.attention import attention, visible
from hvbench.frameworks.tensorflow.execution import _with_gradient, recomputed
from hvbench.frameworks.tensorflow.families import FAMILIES
from hvbench.frameworks.tensorflow.layers import _product_over_rows, _rows, multiply_by_rows
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.loss_chunks import loss_chunk
from hvbench.training.masking import IGNORED


class Model(AdaptedLayers):
    """The parameters by canonical name (`hvbench.training.weights`), and the forward pass."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        super().__init__(point, weights, precision=precision, device=device)
        self.family = FAMILIES[point.family]
        # Rows of zeros below the output projection.
        self.padding = missing_rows(point.vocab_size, dtype=precision.product_dtype, device=device)
        self.loss_chunk = loss_chunk(point, device=device)

    def logits(
        self,
        inputs: tf.Tensor,
        *,
        starts: tf.Tensor | None = None,
        places: tf.Tensor | None = None,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Tokens [B, T] -> logits [B, T, V], [B, T, tags] or [samples, classes], in the parameters' dtype; dropout is on where a seed is given.

        `starts` [B, T] and `places` [samples] of `hvbench.training.layout.Layout`, where rows hold documents, and each several samples.
        """
        return self._project(self._features(inputs, starts, places, seed))

    def loss(
        self,
        inputs: tf.Tensor,
        targets: tf.Tensor,
        *,
        starts: tf.Tensor | None = None,
        places: tf.Tensor | None = None,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Mean cross-entropy, in nats, of tokens [B, T] against targets [B, T] that are not IGNORED, or classes [samples]; squared error of numbers.

        Of pairs of texts (`hvbench.training.pairs`) the first target is the pair's class, whose mean cross-entropy is added.
        """
        drop = _Dropout(self.point.dropout, seed)
        x = self._encode(inputs, starts, drop)
        if not self.point.judges_pairs:
            return self._mean_cross_entropy(self._read(x, starts, places, drop), targets, starts)
        classes = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[:, 0], self._judge(x))
        others = self._mean_cross_entropy(self._read(x, starts, places, drop), _hide_class(targets), starts)
        return others + tf.reduce_mean(classes)

    def _mean_cross_entropy(self, x: tf.Tensor, targets: tf.Tensor, starts: tf.Tensor | None) -> tf.Tensor:
        """Of what `_features` yields against targets [B, T] or [B]; of numbers [B] the mean squared error."""
        if self.loss_chunk:
            chunked = _with_gradient(self._chunked_cross_entropy)
            with self.hold(self._head_name, x):
                return chunked(_rows(x), self._output_embedding(), tf.reshape(targets, (-1,)), *self._output_bias())
        logits = self._project(x)
        if self.point.is_regression:
            return tf.reduce_mean(tf.square(logits[:, 0] - tf.cast(targets, logits.dtype)))
        if not self.point.hides_tokens and starts is None:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            return tf.cast(_sum(losses), losses.dtype) / tf.size(losses, losses.dtype)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
        counts = tf.cast(targets != IGNORED, losses.dtype)
        return tf.cast(_sum(losses * counts), losses.dtype) / tf.reduce_sum(counts)

    def sample_losses(self, inputs: tf.Tensor, targets: tf.Tensor, *, starts: tf.Tensor | None = None) -> tf.Tensor:
        """Mean cross-entropy, or squared error, [B] of each sample, as `loss` takes it over all of them, without dropout and without classes of pairs."""
        targets = _hide_class(targets) if self.point.judges_pairs else targets
        x, rows, flat = self._features(inputs, starts, None, None), targets.shape[0], tf.reshape(targets, (-1,))
        if self.point.is_regression:
            predicted = self._project(x)[:, 0]
            return tf.square(predicted - tf.cast(flat, predicted.dtype))
        losses: list[tf.Tensor] = []
        for start, end in self._chunks(flat.shape[0]):
            # One after the other, as memory should be used.
            with self.hold(self._head_name, x), tf.control_dependencies(losses[-1:]):
                logits = self._project(_rows(x)[None, start:end] if self.loss_chunk else x)
                logits = tf.reshape(logits, (end - start, -1))
                chosen = tf.maximum(flat[start:end], 0)
                losses.append(tf.nn.sparse_softmax_cross_entropy_with_logits(chosen, logits))
        counts = tf.reshape(tf.cast(targets != IGNORED, losses[0].dtype), (rows, -1))
        losses_of_rows = tf.reshape(tf.concat(losses, axis=0), (rows, -1))
        return tf.reduce_sum(losses_of_rows * counts, axis=1) / tf.reduce_sum(counts, axis=1)

    def next_sentence_logits(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pairs of texts [B, T] -> logits [B, 2] that the second follows the first, and that it does not; without dropout."""
        return self._judge(self._encode(inputs, None, _Dropout(0.0, None)))

    def _features(
        self, inputs: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None, seed: tf.Tensor | None
    ) -> tf.Tensor:
        """Tokens [B, T] -> what the output projection multiplies [B, T, W], or [samples, 1, W]."""
        drop = _Dropout(self.point.dropout, seed)
        return self._read(self._encode(inputs, starts, drop), starts, places, drop)

    def _encode(self, inputs: tf.Tensor, starts: tf.Tensor | None, drop: _Dropout) -> tf.Tensor:
        """Tokens [B, T] -> the residual stream behind the last block [B, T, W]."""
        x = self.family.embed(self, inputs, starts)  # [B, T, W]
        x = drop(x)
        documents = None if starts is None else visible(starts, point=self.point, dtype=self.compute_dtype)
        rotation = self.family.rotations(self, inputs, starts)
        for layer in range(self.point.num_layers):
            x = self._block(x, layer, drop, documents, rotation)
        return x

    def _read(self, x: tf.Tensor, starts: tf.Tensor | None, places: tf.Tensor | None, drop: _Dropout) -> tf.Tensor:
        """What `_encode` yields -> what `_features` does."""
        if self.point.labels_samples:
            x = self.family.pool(self, x, starts, places)
        else:
            x = self.round(self.family.finish(self, x))
        return drop(x) if self.point.predicts_labels and self.traits.has_heads else x

    def _judge(self, x: tf.Tensor) -> tf.Tensor:
        """What `_encode` yields -> logits [B, 2] of a pair's class."""
        return self.widen(self.linear(self.family.pool(self, x, None, None), "next_sentence"))[:, 0]

    def _project(self, x: tf.Tensor) -> tf.Tensor:
        """What `_features` yields -> logits [..., V], or [B, classes], in the parameters' dtype."""
        if self.point.predicts_labels:
            values = self.widen(self.linear(x, "classifier"))
            return values if self.point.is_tagger else values[:, 0]
        logits = multiply_by_rows(x, self._output_embedding(), gemm=self.point.gemm)
        if self.padding:
            logits = logits[..., : self.point.vocab_size]
        return sum(self._output_bias(), start=self.widen(self.round(logits)))

    def _output_embedding(self) -> tf.Tensor:
        """The output projection [V, W] as it is multiplied: rounded, and with the rows of zeros."""
        embedding = self.round(self.parameters[self._head_name])
        return tf.pad(embedding, ((0, self.padding), (0, 0))) if self.padding else embedding

    @property
    def _head_name(self) -> str:
        """What the name of the last projection's parameters begins with."""
        if self.point.predicts_labels:
            return "classifier."
        return "token_embedding" if self.point.tied_embeddings else "output_embedding"

    def _output_bias(self) -> list[tf.Variable]:
        """What is added to the logits: a bias [V], in families that have one."""
        bias = self.parameters.get("output.bias")
        return [] if bias is None else [bias]

    def _chunks(self, tokens: int) -> list[tuple[int, int]]:
        """The first token of each chunk, and the one after its last."""
        size = self.loss_chunk or tokens
        return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]

    def _chunked_cross_entropy(self, x: tf.Tensor, embedding: tf.Tensor, targets: tf.Tensor, *biases: tf.Tensor):
        """Mean cross-entropy of x [N, W] × transposed embedding [V, W], plus a bias [V] where there is one, against targets [N] that are
        not IGNORED, and its gradient.

        Logits exist for a chunk of tokens at a time. Its gradients are computed at once, softmax less one-hot, and wait to be
        multiplied by the gradient of the loss: nothing is computed twice, and nothing of V values a token kept.
        """
        vocabulary, head = self.point.vocab_size, self._head_name
        needs_x, needs_embedding = bool(self.trained.keys() - {head, "output.bias"}), head in self.trained
        counts = tf.cast(targets != IGNORED, self.parameter_dtype)
        total, d_embedding = tf.zeros((), tf.float64), None
        d_biases = [tf.zeros_like(bias) for bias in biases]
        parts: list[tf.Tensor] = []
        done: list[tf.Tensor] = []
        for start, end in self._chunks(x.shape[0]):
            with tf.control_dependencies(done):  # one after the other
                rows, chosen = x[start:end], tf.maximum(targets[start:end], 0)
                logits = self.widen(self.round(tf.matmul(rows, embedding, transpose_b=True)[:, :vocabulary]))
                logits = sum(biases, start=logits)
                losses, d_logits = _cross_entropy(logits, chosen)
                if self.point.hides_tokens or self.point.separates_documents:
                    losses, d_logits = losses * counts[start:end], d_logits * counts[start:end, None]
                total += _sum(losses)
                d_biases = [d_bias + tf.reduce_sum(d_logits, axis=0) for d_bias in d_biases]
                d_logits = self.round(d_logits)
                if self.padding:
                    d_logits = tf.pad(d_logits, ((0, 0), (0, self.padding)))
                done = d_biases if "output.bias" in self.trained else []
                if needs_x:
                    parts.append(tf.matmul(d_logits, embedding))
                    done = [*done, parts[-1]]
                if needs_embedding:
                    more = self.widen(_product_over_rows(d_logits, rows))
                    d_embedding = more if d_embedding is None else d_embedding + more
                    done = [*done, d_embedding]
        d_x, count = tf.concat(parts, axis=0) if needs_x else None, tf.reduce_sum(counts)

        def backward(gradient: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            factor = gradient / count
            of_x = tf.cast(self.widen(d_x) * factor, x.dtype) if needs_x else None
            of_embedding = tf.cast(d_embedding * factor, embedding.dtype) if needs_embedding else None
            return of_x, of_embedding, None, *(d_bias * factor for d_bias in d_biases)

        return tf.cast(total, counts.dtype) / count, backward

    def _block(
        self, x: tf.Tensor, layer: int, drop: _Dropout, documents: tf.Tensor | None, rotation: tf.Tensor | None
    ) -> tf.Tensor:
        """Attention, then the MLP, each added to the residual stream [B, T, W]; what the point names is recomputed."""
        name, calls = f"block{layer}", drop.calls

        def heads(x: tf.Tensor) -> tf.Tensor:
            more = drop(self._attention(x, f"{name}.attention", drop, documents, rotation))
            return self.adapt(more, f"{name}.attention.adapter")

        def mlp(x: tf.Tensor) -> tf.Tensor:
            return self.adapt(drop(self.widen(self.family.mlp(self, x, f"{name}.mlp"))), f"{name}.mlp.adapter")

        def attend(x: tf.Tensor) -> tf.Tensor:
            drop.calls = calls  # the masks of the first time, whenever this runs
            return self._add(x, heads, f"{name}.norm1")

        def run(x: tf.Tensor) -> tf.Tensor:
            with self.hold(f"{name}.", x):
                x = recomputed(attend, is_random=drop.rate > 0)(x) if self.point.recompute == "attention" else attend(x)
                return self._add(x, mlp, f"{name}.norm2")

        return recomputed(run, is_random=drop.rate > 0)(x) if self.point.recompute == "block" else run(x)

    def _add(self, x: tf.Tensor, half: Callable[[tf.Tensor], tf.Tensor], name: str) -> tf.Tensor:
        """The residual stream x [B, T, W] and half a block of it, with the norm `name` of their sum, or of what that half reads."""
        if self.traits.norms_sums:
            return self.family.norm(self, x + half(x), name)
        return x + half(self.family.norm(self, x, name))

    def _attention(
        self, x: tf.Tensor, name: str, drop: _Dropout, documents: tf.Tensor | None, rotation: tf.Tensor | None
    ) -> tf.Tensor:
        B, T, W = x.shape
        q, k, v = self.family.split_heads(self, self.linear(x, f"{name}.qkv"), rotation)  # each [B, H, T, Q]
        k, v = self.prefix(k, v, name)
        choices = {"point": self.point, "rate": drop.rate, "seed": drop.next_seed(), "documents": documents}
        heads = attention(q, k, v, **choices)  # [B, H, T, Q]
        heads = tf.transpose(heads, (0, 2, 1, 3))  # [B, T, H, Q]
        return self.widen(self.linear(tf.reshape(heads, (B, T, W)), f"{name}.out"))


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


def _sum(losses: tf.Tensor) -> tf.Tensor:
    """The sum of losses in float64: XLA adds one after the other."""
    return tf.reduce_sum(tf.cast(losses, tf.float64))


def _hide_class(targets: tf.Tensor) -> tf.Tensor:
    """Targets [B, T] of pairs of texts without the first, the pair's class."""
    return tf.pad(targets[:, 1:], ((0, 0), (1, 0)), constant_values=IGNORED)


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
