"""Momenta as signs in TensorFlow, with a scale for each bucket of values: 1-bit Adam."""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.tensorflow.operations import start_gather, start_parts, start_reduction, wait
from hvbench.spec.point import Point
from hvbench.training.compression import PACKING, SIGNS, SIGNS_IN_A_BYTE, MomentumLayout, momentum_layout, own_part

_PARTS = "part_residuals/"


class OneBitAllReduce(FeedbackAllReduce):
    """Average gradients as they are, and momenta as signs: a reduce-scatter and an all-gather, the two halves of a ring all-reduce.

    Each rank receives all ranks' signs of its part of every momentum (all-to-all), averages what they stand for and makes signs of the
    average again; then all parts are gathered. `part_residuals` are what these second signs have yet to send of this rank's parts.
    """

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)
        self.layouts = {
            name: momentum_layout(value.shape.num_elements(), point) for name, value in self.residuals.items()
        }
        with tf.device(device):
            self.part_residuals = {
                name: tf.Variable(tf.zeros(layout.filled_length)) for name, layout in self.layouts.items()
            }

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to average one gradient, uncompressed."""
        self.pending[name] = (start_reduction(name, gradient, op=hvd.Average),)

    def finish(self) -> dict[str, tf.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = {name: wait(handle) for name, (handle,) in self.pending.items()}
        self.pending = {}
        return averages

    def average_momenta(self, momenta: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Canonical name -> average of what all ranks send of their momenta; whether all are finite, the same on all ranks.

        All momenta are one message.
        """
        widths = [self.layouts[name].message_bytes for name in momenta]
        parts = tf.concat([self._send(name, value) for name, value in momenta.items()], 1)
        received = wait(start_parts("momenta.parts", tf.reshape(parts, [-1])))
        received = tf.split(tf.reshape(received, [self.world_size, sum(widths)]), widths, 1)
        averages = tf.concat([self._send_part(*each) for each in zip(momenta, received, strict=True)], 1)
        gathered = wait(start_gather("momenta.averages", averages))
        gathered = tf.split(tf.reshape(gathered, [self.world_size, sum(widths)]), widths, 1)
        final, are_finite = {}, []
        for (name, value), messages in zip(momenta.items(), gathered, strict=True):
            layout = self.layouts[name]
            values = tf.reshape(_decode(layout, messages)[:, : layout.length], [-1])
            final[name] = tf.reshape(values[: layout.values], value.shape)
            are_finite.append(tf.reduce_all(tf.math.is_finite(_scales(layout, messages))))
        return final, tf.reduce_all(are_finite)

    def _send(self, name: str, momentum: tf.Tensor) -> tf.Tensor:
        """The messages [ranks, bytes] of one momentum with what was left of it before; keeps what they leave."""
        layout = self.layouts[name]
        corrected = tf.reshape(self.residuals[name] + momentum, [-1])
        parts = tf.reshape(_fill(corrected, self.world_size * layout.length), [self.world_size, -1])
        parts = _fill(parts, layout.filled_length)
        message, sent = _encode(layout, parts, tf.constant(layout.bucket_sizes))
        left = corrected - tf.reshape(sent[:, : layout.length], [-1])[: layout.values]
        self.residuals[name].assign(tf.reshape(left, momentum.shape))
        return message

    def _send_part(self, name: str, received: tf.Tensor) -> tf.Tensor:
        """The message [1, bytes] of the average of this rank's part of one momentum, with what was left of it before."""
        layout, residual = self.layouts[name], self.part_residuals[name]
        own = own_part(layout.values, rank=self.rank, world_size=self.world_size)
        corrected = residual + tf.reduce_mean(_decode(layout, received), 0)
        corrected = _fill(corrected[: own.stop - own.start], layout.filled_length)
        message, sent = _encode(layout, corrected[None], tf.constant(layout.bucket_sizes[self.rank, None]))
        left = (corrected - sent[0])[: own.stop - own.start]  # of what fills the part up nothing is left
        residual.assign(_fill(left, layout.filled_length))
        return message

    def state(self) -> Arrays:
        """`residuals/NAME`, and `part_residuals/NAME`: what the averages of this rank's part have yet to send."""
        return super().state() | {f"{_PARTS}{name}": value.numpy() for name, value in self.part_residuals.items()}

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        super().load_state(state)
        for name, value in self.part_residuals.items():
            value.assign(state[f"{_PARTS}{name}"])


def _encode(layout: MomentumLayout, values: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Values [parts, filled length] -> messages [parts, bytes]: signs, then scales; and the values that these stand for.

    Scales are summed in float64, so that they do not depend on the order.
    """
    count = values.shape[0]
    buckets = tf.reshape(values, [count, -1, layout.bucket])
    scales = tf.cast(tf.reduce_sum(tf.cast(tf.abs(buckets), tf.float64), 2) / sizes, tf.float32)
    are_positive = buckets >= 0
    eights = tf.reshape(tf.cast(are_positive, tf.uint8), [count, -1, SIGNS_IN_A_BYTE])
    packed = tf.bitcast(tf.bitcast(eights, tf.int64) * PACKING, tf.uint8)[:, : layout.sign_bytes, -1]
    signs = tf.cast(are_positive, tf.float32) * 2.0 - 1.0
    sent = signs * scales[:, :, None]
    scale_bytes = tf.reshape(tf.bitcast(scales, tf.uint8), [count, -1])
    return tf.concat([packed, scale_bytes], 1), tf.reshape(sent, values.shape)


def _decode(layout: MomentumLayout, messages: tf.Tensor) -> tf.Tensor:
    """The values [parts, filled length] that messages [parts, bytes] stand for."""
    count = messages.shape[0]
    signs = tf.gather(tf.constant(SIGNS), tf.cast(messages[:, : layout.sign_bytes], tf.int32))
    signs = tf.reshape(signs, [count, layout.sign_bytes * SIGNS_IN_A_BYTE])
    signs = tf.reshape(_fill(signs, layout.filled_length), [count, -1, layout.bucket])
    values = signs * _scales(layout, messages)[:, :, None]
    return tf.reshape(values, [count, layout.filled_length])


def _fill(values: tf.Tensor, length: int) -> tf.Tensor:
    """Values [..., length], with zeros behind those that there are; the same tensor where there are as many."""
    missing = length - values.shape[-1]
    return tf.pad(values, [[0, 0]] * (len(values.shape) - 1) + [[0, missing]]) if missing else values


def _scales(layout: MomentumLayout, messages: tf.Tensor) -> tf.Tensor:
    """The scales [parts, buckets] in messages [parts, bytes]."""
    return tf.bitcast(tf.reshape(messages[:, layout.sign_bytes :], [messages.shape[0], layout.buckets, 4]), tf.float32)
