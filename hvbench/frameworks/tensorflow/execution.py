"""How parts of the model run in TensorFlow: compiled, recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# tf.function's argument `jit_compile`: XLA has one mode.
MODES = {"default": True}


def compiled(function: Callable[..., Any], *, choice: str, device: str) -> Callable[..., Any]:
    """`function`, forward and backward, compiled as a point's `compile` asks; itself for "none".

    It is one operation, whose gradients are final together when it ends.
    """
    if choice == "none":
        return function
    return tf.function(function, autograph=False, jit_compile=MODES[choice])


def forget_compiled() -> None:
    """Free what was compiled in this process: XLA keeps it with the graphs, which go with their trainer."""


def recomputed(function: Callable[[tf.Tensor], tf.Tensor], *, is_random: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """`function` of one tensor, of which a forward pass keeps only that tensor: the backward pass computes the rest again.

    (Chen et al., arXiv:1604.06174) Nothing is done for what `is_random`: each mask of dropout is a function of its seed.
    """
    return tf.recompute_grad(function)
