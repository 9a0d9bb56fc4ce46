"""Horovod's operations in TensorFlow: begun under a name, which is the same on all ranks, and waited for.

In a graph each runs as soon as its values exist, and what reads its result waits for it.
"""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf


def start_reduction(name: str, values: tf.Tensor, **choices: Any) -> tf.Tensor:
    """Sum or average `values` over the ranks; `choices`: Horovod's, of which and how."""
    return hvd.allreduce(values, name=_wire_name(name), ignore_name_scope=True, **choices)


def start_gather(name: str, values: tf.Tensor, **choices: Any) -> tf.Tensor:
    """Hand every rank's `values` to all, one behind the other in the first dimension, in the order of the ranks; `choices`: Horovod's, of whom."""
    return hvd.allgather(values, name=_wire_name(name), ignore_name_scope=True, **choices)


def start_parts(name: str, values: tf.Tensor, **choices: Any) -> tf.Tensor:
    """Hand every rank its part of all ranks' `values`; parts divide the first dimension evenly; `choices`: Horovod's, of whom."""
    return hvd.alltoall(values, name=_wire_name(name), ignore_name_scope=True, **choices)


def wait(handle: tf.Tensor) -> tf.Tensor:
    """What an operation has brought."""
    return handle


def _wire_name(name: str) -> str:
    """A tensor's name as TensorFlow allows it for an operation: without dots."""
    return name.replace(".", "_")
