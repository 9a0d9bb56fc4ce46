"""The largest values of each gradient in TensorFlow, with their indices, from every rank to every other."""

from __future__ import annotations

import tensorflow as tf

from hvbench.frameworks.tensorflow.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.tensorflow.operations import start_gather, wait
from hvbench.training.compression import topk_count


class TopKAllReduce(FeedbackAllReduce):
    """Average the values of each gradient that are largest by size on a rank; elsewhere that rank counts as 0."""

    def start(self, name: str, gradient: tf.Tensor) -> None:
        """Begin to send the largest values of one gradient: k indices, then k values as their bits."""
        residual = self.residuals[name]
        corrected = tf.reshape(residual + gradient, [-1])
        count = topk_count(corrected.shape.num_elements(), self.point)
        largest = tf.math.top_k(tf.abs(corrected), count, sorted=False).indices
        values = tf.gather(corrected, largest)
        left = tf.tensor_scatter_nd_update(corrected, largest[:, None], tf.zeros_like(values))
        residual.assign(tf.reshape(left, gradient.shape))
        message = tf.concat([largest, tf.bitcast(values, tf.int32)], 0)
        self.pending[name] = (start_gather(f"{name}.largest", message), gradient.shape)

    def finish(self) -> dict[str, tf.Tensor]:
        """Add up what all ranks have sent, in their order; canonical name -> average."""
        averages = {}
        for name, (handle, shape) in self.pending.items():
            total = tf.zeros([shape.num_elements()])
            messages = tf.reshape(wait(handle), [self.world_size, 2, -1])
            for rank in range(self.world_size):
                indices, values = messages[rank, 0], tf.bitcast(messages[rank, 1], tf.float32)
                total = tf.tensor_scatter_nd_add(total, indices[:, None], values)  # a rank sends no index twice
            averages[name] = tf.reshape(total / self.world_size, shape)
        self.pending = {}
        return averages
