"""Attention in TensorFlow: in strips whose probabilities are computed twice instead of kept, or as in the textbook.

FlashAttention (Dao et al., arXiv:2205.14135) keeps queries, keys, values and the result, and computes probabilities once more in
the backward pass, block by block. A block is a strip here: `ROWS` queries, and all keys up to the last that they attend to. So no
softmax has to be rescaled, sums are exact, keys that a causal mask hides from a whole strip cost nothing, and memory grows
with T, not T². What is one strip keeps its probabilities.

Shapes: B micro-batch, H heads, T sequence length, P prefixes, Q head size; R rows of a strip, E keys up to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvbench.frameworks.tensorflow import FRAMEWORK
from hvbench.frameworks.tensorflow.execution import _with_gradient
from hvbench.spec.point import Point

_ROWS = FRAMEWORK.kept.strip_rows  # docs/measurements.md has strips of other sizes
_UNROLLED = 4  # strips, at most, that are traced one by one: 8 % faster than a loop, which is traced once


def visible(starts: tf.Tensor, *, point: Point, dtype: tf.DType) -> tf.Tensor:
    """What `attention` takes of documents that begin at `starts` [B, T]: these, of which each strip makes a mask of its own."""
    return starts


def attention(
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    *,
    point: Point,
    rate: float,
    seed: tf.Tensor | None,
    documents: tf.Tensor | None = None,
) -> tf.Tensor:
    """softmax(q kᵀ / √Q) v: queries, keys and values [B, H, T, Q] -> [B, H, T, Q]; the point has the algorithm and the mask.

    Keys and values may have more positions in front, the prefixes of an adaptation, which all queries see.

    `documents` is `visible` of them; None: a row is one. Probabilities are rounded to the dtype of q, k and v, and dropped at
    `rate` with masks that follow from `seed` [2]. Operands of an emulated precision have the parameters' dtype: probabilities stay
    unrounded there, as in PyTorch's fused kernel.
    """
    if point.attention == "plain":
        return _plain_attention(q, k, v, is_causal=point.is_causal, rate=rate, seed=seed, documents=documents)
    is_compiled = point.compile != "none"
    strips = _Strips(
        q,
        before=k.shape[2] - q.shape[2],
        is_causal=point.is_causal,
        rate=rate,
        seed=seed,
        documents=documents,
        is_compiled=is_compiled,
    )
    return _with_gradient(strips.attend if strips.count > 1 else strips.attend_at_once)(q, k, v)


def _plain_attention(
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    *,
    is_causal: bool,
    rate: float,
    seed: tf.Tensor | None,
    documents: tf.Tensor | None,
) -> tf.Tensor:
    T, Q = q.shape[2:]
    before = k.shape[2] - T
    scores = _widen(tf.matmul(q, k, transpose_b=True)) / math.sqrt(Q)  # [B, H, T, P + T]
    if is_causal:
        scores += tf.constant(np.triu(np.full((T, before + T), -np.inf), k=1 + before), scores.dtype)
    if documents is not None:
        scores += _hide_others(documents, documents, before, dtype=scores.dtype)
    probabilities = tf.cast(tf.nn.softmax(scores), q.dtype)
    if rate:
        probabilities = tf.nn.experimental.stateless_dropout(probabilities, rate, seed=seed)
    return tf.matmul(probabilities, v)


class _Strips:
    """Attention of queries [B, H, T, Q] in strips of rows, with its gradient written out."""

    def __init__(
        self,
        q: tf.Tensor,
        *,
        before: int,
        is_causal: bool,
        rate: float,
        seed: tf.Tensor | None,
        documents: tf.Tensor | None,
        is_compiled: bool,
    ) -> None:
        self.length = q.shape[2]
        self.rows = min(_ROWS, self.length)
        self.count = math.ceil(self.length / self.rows)
        # 1 / √Q is a factor of queries where that rounds no value to fewer bits than the scores have, else of the scores.
        scale = 1 / math.sqrt(q.shape[3])
        is_exact = q.dtype.size >= 4 or math.log2(scale).is_integer()
        self.query_factor, self.score_factor = (scale, 1.0) if is_exact else (1.0, scale)
        self.before = before  # keys that all rows see
        self.is_causal = is_causal
        self.rate = rate
        self.seed = seed
        self.documents = documents
        self.is_unrolled = self.count <= _UNROLLED or is_compiled  # XLA wants shapes that are known

    def attend_at_once(self, q: tf.Tensor, k: tf.Tensor, v: tf.Tensor):
        """The attention of one strip, and the function from its gradient to those of q, k and v."""
        q = _times(q, self.query_factor)
        probabilities, dropped = self._probabilities(q, k, 0)
        result = tf.matmul(dropped, v)

        def backward(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return self._gradients(q, k, v, result, d, probabilities, dropped)

        return result, backward

    def attend(self, q: tf.Tensor, k: tf.Tensor, v: tf.Tensor):
        """The same in several strips, of which nothing else is kept than q, k, v and the result."""
        scaled = _times(q, self.query_factor)

        def strip(number: int | tf.Tensor):
            start, end, keys = self._bounds(number)
            _, dropped = self._probabilities(scaled[:, :, start:end], k[:, :, :keys], number)
            return (), (tf.matmul(dropped, v[:, :, :keys]),)

        _, (result,) = self._run(strip, (), results=(q,))

        def backward(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            with tf.control_dependencies([d]):  # else a graph computes probabilities again as soon as it has q
                scaled = _times(tf.identity(q), self.query_factor)

            def strip(number: int | tf.Tensor, d_k: tf.Tensor, d_v: tf.Tensor):
                """From the sums over later strips to those that this strip adds to; what no earlier one attends to is a result."""
                start, end, keys = self._bounds(number)
                rows = (x[:, :, start:end] for x in (scaled, result, d))
                queries, heads, d_heads = rows
                columns = k[:, :, :keys], v[:, :, :keys]
                probabilities, dropped = self._probabilities(queries, columns[0], number)
                d_q, more_k, more_v = self._gradients(queries, *columns, heads, d_heads, probabilities, dropped)
                d_k, d_v = d_k + more_k, d_v + more_v
                if not self.is_causal:
                    return (d_k, d_v), (d_q,)
                first = self.before + start
                return (d_k[:, :, :first], d_v[:, :, :first]), (d_q, d_k[:, :, first:], d_v[:, :, first:])

            zeros = tf.zeros_like(k), tf.zeros_like(v)
            sums, results = self._run(strip, zeros, results=(q, k, v) if self.is_causal else (q,))
            if not self.is_causal:
                return (*results, *sums)
            if not self.before:
                return results
            return (results[0], *(tf.concat(parts, axis=2) for parts in zip(sums, results[1:], strict=True)))

        return result, backward

    def _bounds(self, number: int | tf.Tensor) -> tuple:
        """Of a strip: its first row, the row after its last, and the number of keys that it attends to."""
        start = number * self.rows
        least = min if isinstance(number, int) else tf.minimum
        end = least(start + self.rows, self.length)
        return start, end, self.before + (end if self.is_causal else self.length)

    def _probabilities(self, q: tf.Tensor, k: tf.Tensor, number: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """softmax(q kᵀ) [B, H, R, E] of a strip, scaled, in the parameters' dtype; and rounded and dropped, as it is multiplied."""
        scores = _times(_widen(tf.matmul(q, k, transpose_b=True)), self.score_factor)
        if self.is_causal:
            # The last R of E columns are the strip's own rows.
            if self.count == 1:
                hidden = tf.constant(
                    np.triu(np.full((self.length, self.before + self.length), -np.inf), k=1 + self.before), scores.dtype
                )
            else:  # computed: a constant of [R, T] would be in every layer's graphs, forward and backward
                rows, keys = tf.shape(scores)[2], tf.shape(scores)[3]
                is_hidden = tf.range(keys) > tf.range(rows)[:, None] + (keys - rows)
                hidden = tf.where(is_hidden, tf.constant(-np.inf, scores.dtype), tf.constant(0, scores.dtype))
            scores += hidden
        if self.documents is not None:
            start, end, keys = self._bounds(number)
            columns = self.documents[:, : keys - self.before]
            scores += _hide_others(self.documents[:, start:end], columns, self.before, dtype=scores.dtype)
        probabilities = tf.nn.softmax(scores)
        dropped = tf.cast(probabilities, q.dtype)
        if self.rate:
            seed = self.seed + tf.stack([number, 0])
            dropped = tf.nn.experimental.stateless_dropout(dropped, self.rate, seed=seed)
        return probabilities, dropped

    def _gradients(
        self,
        q: tf.Tensor,
        k: tf.Tensor,
        v: tf.Tensor,
        result: tf.Tensor,
        d: tf.Tensor,
        probabilities: tf.Tensor,
        dropped: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Gradients of a strip's queries, of its keys and of its values, from d, that of its result.

        The sum over a row of probabilities times their gradients is that of d times the result, with dropout too.
        """
        d_v = tf.matmul(dropped, d, transpose_a=True)
        d_dropped = _widen(tf.matmul(d, v, transpose_b=True))
        row_sums = tf.reduce_sum(_widen(d) * _widen(result), axis=-1, keepdims=True)
        if self.rate:  # what is dropped is 0, what is not is divided by the probability of keeping
            d_scores = _widen(dropped) * d_dropped - probabilities * row_sums
        else:
            d_scores = probabilities * (d_dropped - row_sums)
        d_scores = tf.cast(_times(d_scores, self.score_factor), q.dtype)
        d_q = _times(tf.matmul(d_scores, k), self.query_factor)
        return d_q, tf.matmul(d_scores, q, transpose_a=True), d_v

    def _run(
        self, strip: Callable, carried: tuple, *, results: Sequence[tf.Tensor]
    ) -> tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]:
        """What the first strip carries on, and what all of them yield, joined along T to the shapes of `results`.

        One after the other, from the last: a graph would run them all at once, and a heap would grow with strips that grow.
        """
        if self.is_unrolled:
            yielded: list[Sequence[tf.Tensor]] = []
            for number in reversed(range(self.count)):
                with tf.control_dependencies(yielded[-1] if yielded else []):
                    carried, parts = strip(number, *carried)
                yielded.append(parts)
            return carried, [tf.concat(parts[::-1], axis=2) for parts in zip(*yielded, strict=True)]

        def body(step: tf.Tensor, carried: Sequence[tf.Tensor], arrays: Sequence[tf.TensorArray]):
            number = self.count - 1 - step
            carried, parts = strip(number, *carried)
            rows_first = (tf.transpose(part, (2, 0, 1, 3)) for part in parts)
            return step + 1, carried, [a.write(number, x) for a, x in zip(arrays, rows_first, strict=True)]

        B, H, T, Q = results[0].shape
        arrays = [
            tf.TensorArray(x.dtype, self.count, element_shape=(None, B, H, Q), infer_shape=False) for x in results
        ]
        shapes = (
            tf.TensorShape(()),
            tuple(tf.TensorShape((B, H, None, Q)) for _ in carried),
            [tf.TensorShape(None) for _ in arrays],
        )
        _, carried, arrays = tf.while_loop(
            lambda step, *_: step < self.count,
            body,
            (tf.constant(0), carried, arrays),
            shape_invariants=shapes,
            parallel_iterations=1,
        )
        joined = [tf.ensure_shape(array.concat(), (T, B, H, Q)) for array in arrays]
        return carried, [tf.transpose(x, (1, 2, 0, 3)) for x in joined]


def _hide_others(rows: tf.Tensor, columns: tf.Tensor, before: int, *, dtype: tf.DType) -> tf.Tensor:
    """0 where a row [B, R] and a column [B, E - P] are of documents that begin at the same place, else -inf: [B, 1, R, E].

    The first P = `before` columns are of all documents.
    """
    is_same = rows[:, :, None] == columns[:, None, :]
    hidden = tf.where(is_same, tf.constant(0.0, dtype), tf.constant(-math.inf, dtype))[:, None]
    return tf.pad(hidden, ((0, 0), (0, 0), (0, 0), (before, 0))) if before else hidden


def _times(x: tf.Tensor, factor: float) -> tf.Tensor:
    return x if factor == 1.0 else x * tf.constant(factor, x.dtype)


def _widen(x: tf.Tensor) -> tf.Tensor:
    """x in the parameters' dtype: 16 bits in float32."""
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x
