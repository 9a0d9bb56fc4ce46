"""A Keras `fit` on Horovod: a small network learns which of ten patterns lies in a noisy picture.

    python train.py                        # one process
    horovodrun -np 2 python train.py       # two
    hvbench sweep bench.toml --np 2        # measured, in both ways

It runs without hvbench as well. Horovod 0.28 is made for Keras 2: with Keras 3 its callbacks fail, and its DistributedOptimizer
averages no gradients, without a word. The two callbacks below, and the optimizer, do what theirs do.
"""

from __future__ import annotations

import argparse

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

try:
    from hvbench.probe.keras import ProbeCallback
except ImportError:  # not installed: nothing is measured
    ProbeCallback = None

CLASSES = 10
PIXELS = 16  # a side


class BroadcastVariables(keras.callbacks.Callback):
    """Every rank begins with rank 0's weights."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        for variable in self.model.variables:
            variable.assign(hvd.broadcast(variable.value, root_rank=0))


class AverageMetrics(keras.callbacks.Callback):
    """What an epoch reports is the mean over all ranks, for the callbacks behind this one."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name in sorted(logs or {}):
            logs[name] = float(hvd.allreduce(tf.constant(logs[name], tf.float32), name=name))


class DistributedSGD(keras.optimizers.SGD):
    """Gradients are averaged over all ranks before they are applied."""

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None) -> None:
        super().apply(hvd.grouped_allreduce(grads), trainable_variables)


def main(options: argparse.Namespace) -> None:
    """Train; every epoch ends with a validation."""
    hvd.init()
    keras.utils.set_random_seed(options.seed)
    model = make_model(options.width)
    model.compile(
        optimizer=DistributedSGD(0.02 * hvd.size(), momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callbacks = [BroadcastVariables(), AverageMetrics()]
    if ProbeCallback:
        callbacks.append(ProbeCallback(tokens_per_step=options.batch))  # here what is counted are pictures
    model.fit(
        load(options),
        steps_per_epoch=options.epoch,
        epochs=-(-options.steps // options.epoch),
        validation_data=draw(options.batch, seed=10**6 + hvd.rank()),
        callbacks=callbacks,
        verbose=2 if hvd.rank() == 0 else 0,
    )


def make_model(width: int) -> keras.Model:
    """(batch, PIXELS, PIXELS, 1) -> (batch, CLASSES)."""
    return keras.Sequential(
        [
            keras.Input((PIXELS, PIXELS, 1)),
            keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(width, 3, padding="same", strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def load(options: argparse.Namespace) -> tf.data.Dataset:
    """This rank's batches, again and again."""
    pictures, labels = draw(16 * options.batch, seed=1000 * options.seed + hvd.rank())
    return tf.data.Dataset.from_tensor_slices((pictures, labels)).repeat().batch(options.batch)


def draw(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, PIXELS, PIXELS, 1) and the patterns in them."""
    patterns = np.random.default_rng(0).standard_normal((CLASSES, PIXELS, PIXELS, 1))
    chance = np.random.default_rng(seed)
    labels = chance.integers(CLASSES, size=count)
    pictures = patterns[labels] + 2 * chance.standard_normal((count, PIXELS, PIXELS, 1))
    return pictures.astype(np.float32), labels


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="pictures a rank and step")
    parser.add_argument("--width", type=int, default=32, help="channels of the network")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--epoch", type=int, default=20, metavar="STEPS", help="steps between two validations")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
