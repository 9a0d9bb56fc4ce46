"""One twin alone in a process, one rank: `python -m tests.parity.alone FRAMEWORK FOLDER` leaves its numbers there.

It only records; `test_against_numpy.py` and `test_broken_twin.py` judge. Files (npz): `float64` (logits, loss,
gradients, losses beside the point, two updates), `float64_OBJECTIVE` (the same without updates), `overflow` (a step that overflows), `decayed_biases` and `undivided`
(traces of broken twins).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime, Trainer
from hvbench.parity import record_trace
from hvbench.spec import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.packages import make_batches
from hvbench.training.precision import PRECISIONS
from hvbench.training.schedule import learning_rate_at
from hvbench.training.weights import initial_weights, parameter_shapes
from tests.parity.points import BROKEN, STEPS, configured_point, make_point

DIRECTIONS = 2
FINITE_STEP = 1e-5  # errors: step² from the formula, 1e-16 / step from rounding
OVERFLOWING_SCALE = 2.0**60
# Every part of an update is visible: clipping, an epsilon of the size of the gradients, rates of 0.01 and 0.02.
UPDATE_KNOBS = {"max_gradient_norm": 0.05, "epsilon": 1e-3, "learning_rate": 0.03, "lr_warmup_steps": 2}


class Twin:
    """One framework's trainers."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.runtime: Runtime = load_framework(framework, "runtime").Runtime(
            rank=0, world_size=1, local_rank=0, threads=1, device="cpu"
        )
        self.step = load_framework(framework, "step")
        self.optimizer = load_framework(framework, "optimizer")

    def trainer(self, point: Point, weights: Arrays | None = None, *, precision: str | None = None) -> Trainer:
        """A fresh trainer; `precision` may also be "fp64"."""
        meaning = PRECISIONS[precision or point.precision]
        weights = initial_weights(point, dtype=meaning.parameter_dtype) if weights is None else weights
        return self.step.Trainer(point, weights, precision=meaning, runtime=self.runtime)

    def batches(self, point: Point) -> Batches:
        """The text's batches of the only rank."""
        return make_batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=0)


def small_point(framework: str, **knobs: float | str) -> Point:
    """A model small enough for finite differences."""
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 8, "sequence_length": 6}
    return make_point(framework, 1, micro_batch_size=2, **sizes, **knobs)


def lively_weights(point: Point) -> Arrays:
    """float64 weights far from the initial ones, so that attention attends and no bias is zero."""
    random = np.random.default_rng(1)
    weights = {name: 0.5 * random.standard_normal(shape) for name, shape in parameter_shapes(point).items()}
    return {name: value + 1.0 if name.endswith(".gain") else value for name, value in weights.items()}


def random_direction(weights: Arrays, seed: int) -> Arrays:
    """A step of length 1 that moves every coordinate."""
    random = np.random.default_rng(seed)
    direction = {name: random.standard_normal(value.shape) for name, value in weights.items()}
    length = np.sqrt(sum(np.sum(value**2) for value in direction.values()))
    return {name: value / length for name, value in direction.items()}


def record_float64(twin: Twin, **knobs: str) -> Arrays:
    """Everything of one small point in float64."""
    point = small_point(twin.framework, **knobs)
    weights = lively_weights(point)
    inputs, targets = twin.batches(point).train_batch(0)
    trainer = twin.trainer(point, weights, precision="fp64")
    gradients = trainer.gradients(inputs, targets, loss_scale=1.0)
    arrays = {
        "inputs": inputs,
        "targets": targets,
        "logits": trainer.logits(inputs[0]),
        "loss": np.array([trainer.evaluate(*batch) for batch in zip(inputs, targets, strict=True)]),
        **{f"gradient/{name}": value for name, value in gradients.items()},
    }
    for number in range(DIRECTIONS):
        direction = random_direction(weights, seed=number)
        for sign in (-1, 1):
            moved = {name: value + sign * FINITE_STEP * direction[name] for name, value in weights.items()}
            beside = twin.trainer(point, moved, precision="fp64")
            losses = [beside.evaluate(*batch) for batch in zip(inputs, targets, strict=True)]
            arrays[f"loss_beside/{number}/{sign}"] = np.array(losses)
    return arrays if knobs else arrays | record_updates(twin, weights)


def record_updates(twin: Twin, weights: Arrays) -> Arrays:
    """Gradients and parameters around two updates."""
    point = small_point(twin.framework, **UPDATE_KNOBS)
    trainer, batches = twin.trainer(point, weights, precision="fp64"), twin.batches(point)
    arrays = {}
    for step in range(2):
        inputs, targets = batches.train_batch(step)
        gradients = trainer.gradients(inputs, targets, loss_scale=1.0)
        rate = learning_rate_at(
            step,
            peak=point.learning_rate,
            schedule=point.schedule,
            lr_warmup_steps=point.lr_warmup_steps,
            schedule_steps=point.schedule_steps,
        )
        result = trainer.train_step(inputs, targets, learning_rate=rate, loss_scale=1.0)
        arrays[f"step{step}/gradient_norm"] = np.array(result.gradient_norm)
        arrays |= {f"step{step}/gradient/{name}": value for name, value in gradients.items()}
        arrays |= {f"step{step}/after/{name}": value for name, value in trainer.parameters().items()}
    return arrays


def record_overflow(twin: Twin) -> Arrays:
    """Parameters after a skipped step and a sound one, and after the sound one alone."""
    point = configured_point(twin.framework, (1, "fp16", "none"))
    inputs, targets = twin.batches(point).train_batch(0)
    trainer, arrays = twin.trainer(point), {}
    for name, scale in (("skipped", OVERFLOWING_SCALE), ("sound", 2.0**15)):
        result = trainer.train_step(inputs, targets, learning_rate=1e-3, loss_scale=scale)
        arrays[f"{name}/flag"] = np.array(result.skipped)
        arrays |= {f"{name}/{key}": value for key, value in trainer.parameters().items()}
    fresh = twin.trainer(point)
    fresh.train_step(inputs, targets, learning_rate=1e-3, loss_scale=2.0**15)
    arrays |= {f"fresh/{key}": value for key, value in fresh.parameters().items()}
    return arrays | {f"initial/{key}": value for key, value in initial_weights(point).items()}


def trace_decayed_biases(twin: Twin) -> Arrays:
    """A twin whose weight decay forgets to spare biases and gains."""
    point = configured_point(twin.framework, (1, "fp32", "none"))
    sound = twin.optimizer.is_decayed
    twin.optimizer.is_decayed = lambda name: True
    try:
        return record_trace(point, trainer=twin.trainer(point), batches=twin.batches(point), steps=STEPS)
    finally:
        twin.optimizer.is_decayed = sound


def trace_undivided(twin: Twin) -> Arrays:
    """A twin that forgets to divide its gradients by the accumulation steps."""
    point = configured_point(twin.framework, (1, "fp32", "none"))
    trainer = twin.trainer(point)
    finish = trainer.allreduce.finish
    trainer.allreduce.finish = lambda: {
        name: value * point.gradient_accumulation_steps for name, value in finish().items()
    }
    return record_trace(point, trainer=trainer, batches=twin.batches(point), steps=STEPS)


def main(framework: str, folder: Path) -> None:
    """Record everything of one framework."""
    twin = Twin(framework)
    np.savez(folder / "float64.npz", **record_float64(twin))
    for objective in ("masked_lm", "classification"):
        np.savez(folder / f"float64_{objective}.npz", **record_float64(twin, objective=objective))
    np.savez(folder / "overflow.npz", **record_overflow(twin))
    if framework == BROKEN:
        np.savez(folder / "undivided.npz", **trace_undivided(twin))
        np.savez(folder / "decayed_biases.npz", **trace_decayed_biases(twin))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
