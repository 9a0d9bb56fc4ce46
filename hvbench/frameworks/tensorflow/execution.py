"""How parts of the model run in TensorFlow: recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def recomputed(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """`function` of one tensor, of which a forward pass keeps only that tensor: the backward pass computes the rest again.

    Dropout draws the same masks again, because each is a function of its seed. (Chen et al., arXiv:1604.06174)
    """
    return tf.recompute_grad(function)
