"""Gradients in 8 bits in TensorFlow, with a scale for each bucket of values, summed in float32."""

from __future__ import annotations

import tensorflow as tf

from hvbench.frameworks.tensorflow.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.tensorflow.operations import start_gather, start_parts, wait
from hvbench.training.compression import CODES, STEP, own_part, part_length


class Int8AllReduce(FeedbackAllReduce):
    """Average gradients that are sent as int8: a reduce-scatter and an all-gather, the two halves of a ring all-reduce.

    Each rank receives all ranks' values of its part of a gradient (all-to-all), averages them in float32 and rounds the average
    again; then all parts are gathered. What the second rounding loses concerns all ranks: the one that sums adds it, times their number,
    to its own residual.
    """

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to send every rank its part of one gradient, filled up to a multiple of the number of ranks."""
        corrected = tf.reshape(self.residuals[name] + gradient, [-1])
        values = corrected.shape.num_elements()
        padding = self.world_size * part_length(values, self.world_size) - values
        codes, scales = self._quantize(tf.reshape(tf.pad(corrected, [[0, padding]]), [self.world_size, -1]))
        left = corrected - tf.reshape(self._dequantize(codes, scales), [-1])[:values]
        self.pending[name] = (start_parts(f"{name}.parts", _pack(codes, scales)), left, gradient.shape)

    def finish(self) -> dict[str, tf.Tensor]:
        """Average this rank's parts and gather all parts; canonical name -> average."""
        averages = {}
        for name, (handle, left, shape) in self.pending.items():
            values = shape.num_elements()
            mean = tf.reduce_mean(self._unpack(wait(handle), values), 0, keepdims=True)
            codes, scales = self._quantize(mean)
            own = own_part(values, rank=self.rank, world_size=self.world_size)
            lost = tf.reshape(mean - self._dequantize(codes, scales), [-1])[: own.stop - own.start]
            left += tf.pad(self.world_size * lost, [[own.start, values - own.stop]])
            self.residuals[name].assign(tf.reshape(left, shape))
            gathered = wait(start_gather(f"{name}.averages", _pack(codes, scales)))
            averages[name] = tf.reshape(tf.reshape(self._unpack(gathered, values), [-1])[:values], shape)
        self.pending = {}
        return averages

    def _quantize(self, parts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Values [parts, length] -> int8 [parts, length], to nearest and ties to even, and the step of each bucket [parts, buckets]."""
        buckets = self._in_buckets(parts)
        scales = tf.reduce_max(tf.abs(buckets), 2) * STEP
        steps = tf.where(scales > 0, scales, 1.0)
        codes = tf.cast(tf.clip_by_value(tf.round(buckets / steps[:, :, None]), -CODES, CODES), tf.int8)
        return tf.reshape(codes, [parts.shape[0], -1])[:, : parts.shape[1]], scales

    def _dequantize(self, codes: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
        """The values [parts, length] that these stand for."""
        values = tf.cast(self._in_buckets(codes), tf.float32) * scales[:, :, None]
        return tf.reshape(values, [codes.shape[0], -1])[:, : codes.shape[1]]

    def _in_buckets(self, parts: tf.Tensor) -> tf.Tensor:
        """Parts [parts, length] -> [parts, buckets, values], the last bucket filled up with zeros."""
        padding = -parts.shape[1] % self.point.int8_bucket
        return tf.reshape(tf.pad(parts, [[0, 0], [0, padding]]), [parts.shape[0], -1, self.point.int8_bucket])

    def _unpack(self, message: tf.Tensor, values: int) -> tf.Tensor:
        """The values [ranks, length of a part] in what all ranks have sent of a gradient of so many `values`."""
        length = part_length(values, self.world_size)
        buckets = -(-length // self.point.int8_bucket)
        parts = tf.reshape(message, [self.world_size, length + 4 * buckets])
        scales = tf.bitcast(tf.reshape(parts[:, length:], [self.world_size, buckets, 4]), tf.float32)
        return self._dequantize(parts[:, :length], scales)


def _pack(codes: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """Bytes that are sent: of each part its values, then its scales."""
    return tf.reshape(tf.concat([codes, tf.reshape(tf.bitcast(scales, tf.int8), [scales.shape[0], -1])], 1), [-1])
