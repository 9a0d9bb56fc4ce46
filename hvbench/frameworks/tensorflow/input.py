"""TensorFlow's own input: batches from tf.data."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from hvbench.training.batches import Batches
from hvbench.training.layout import Batch, from_arrays, to_arrays

_PREFETCHED = 2  # batches a worker prepares in advance, as in PyTorch: the one that it works on, and one more


class Input:
    """See `hvbench.frameworks.contract.Input`."""

    def __init__(self, batches: Batches, *, steps: range, workers: int) -> None:
        def load(step: tf.Tensor) -> list[tf.Tensor]:
            return tf.numpy_function(lambda number: to_arrays(batches.train_batch(int(number))), [step], batches.dtypes)

        with tf.device("CPU:0"):
            dataset = tf.data.Dataset.range(steps.start, steps.stop)
            dataset = dataset.map(load, num_parallel_calls=workers or None, deterministic=True)
            if workers:
                dataset = dataset.prefetch((_PREFETCHED - 1) * workers)
            self._loaded: Any = iter(dataset.with_options(_make_options(workers)))
        self._steps = iter(steps)

    def train_batch(self, step: int) -> Batch:
        if (expected := next(self._steps, None)) != step:
            raise ValueError(f"step {step} was asked for, the input is at step {expected}")
        return from_arrays([np.asarray(tensor) for tensor in next(self._loaded)])

    def close(self) -> None:
        self._loaded = None  # the iterator's threads end with it


def _make_options(workers: int) -> tf.data.Options:
    """Threads of its own, as many as workers, and nothing that is tuned while steps are timed."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = max(1, workers)
    options.threading.max_intra_op_parallelism = 1
    return options
