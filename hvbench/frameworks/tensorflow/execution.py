"""How parts of the model run in TensorFlow: compiled, recomputed in the backward pass, with gradients written out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

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


def _with_gradient(
    function: Callable[..., tuple[tf.Tensor, Callable[[tf.Tensor], object]]],
) -> Callable[..., tf.Tensor]:
    """A function from tensors to the result of `function`, whose gradients are those that its second value returns.

    As tf.custom_gradient, which in a graph also passes all arguments on as outputs: each of them gets a gradient of zeros, which is
    traced and pruned, and what it registers for a trace is never freed.
    """

    @functools.wraps(function)
    def call(*arguments: tf.Tensor) -> tf.Tensor:
        tensors = [tf.convert_to_tensor(argument) for argument in arguments]
        with record.stop_recording():
            result, backward = function(*tensors)
        record.record_operation(call.__name__, [result], tensors, lambda d: tf.nest.flatten(backward(d)))
        return result

    return call
