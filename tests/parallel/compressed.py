"""One rank of one twin under a launcher: `python -m tests.parallel.compressed FRAMEWORK FOLDER` leaves its tensors there.

It only records; `test_compression.py` judges.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.weights import initial_weights, trained_shapes
from tests.parallel.sent import bytes_sent

STEPS = 3
METHODS = {
    "topk": {"compression": "topk", "topk_share": 0.05},
    "int8": {"compression": "int8", "int8_bucket": 100},
    "powersgd": {"compression": "powersgd", "powersgd_rank": 3},
    "onebit": {"compression": "onebit", "onebit_bucket": 96},
}
FIRST_PHASE = 2  # updates with averaged gradients
RATE = 1e-3
GAP = "parameters/final_norm.gain"  # of one rank alone not finite
OF_PARTS = "topk"  # whose steps are run in parts
ZEROS = ("final_norm.bias", "block0.mlp.up.weight")  # without a gradient in the first step
WIDE = {
    "model": "tiny",
    "num_layers": 1,
    "vocab_size": 32768,
}  # for bytes: Horovod's own messages are few beside a gradient's
COUNTED = 4  # steps


def wide(framework: str, **fields: object) -> Point:
    """The point whose gradients are exchanged: beside them Horovod's own messages are few."""
    sizes = {"model": "tiny", "num_layers": 1, "vocab_size": 32768, "micro_batch_size": 2}
    return Point(**{"framework": framework, "data": "synthetic", "world_size": 2, **sizes, **fields})


def gradients_of(point: Point, *, rank: int, step: int) -> Arrays:
    """Made up ones; some are much larger than others."""
    random = np.random.default_rng([step, rank])
    made = {
        name: random.standard_normal(shape, np.float32) ** 3 * np.float32(1e-3)
        for name, shape in trained_shapes(point).items()
    }
    return made | ({name: np.zeros_like(made[name]) for name in ZEROS} if step == 0 else {})


def main(framework: str, folder: Path) -> None:
    """Exchanges of made-up gradients, parts of a step beside them, bytes that a step sends."""
    rank, world_size = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
    runtime: Runtime = load_framework(framework, "runtime").Runtime(
        rank=rank, world_size=world_size, local_rank=rank, threads=1, device="cpu"
    )
    make_exchange = load_framework(framework, "compression").make_exchange
    arrays: Arrays = {}

    def in_numpy(function: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
        """A function of tensors, as a graph where the framework trains in graphs."""
        if framework == "pytorch":
            import torch

            def run(arrays: Arrays) -> Any:
                return function({name: torch.from_numpy(value) for name, value in arrays.items()})
        else:
            import tensorflow as tf

            run = tf.function(function, autograph=False)
        return lambda arrays: {name: value.numpy() for name, value in run(arrays).items()}

    def prepare(point: Point) -> tuple[Any, Callable[[int], Arrays]]:
        """An all-reduce, and what it makes of the gradients of a step."""
        allreduce = make_exchange(
            runtime.ranks, point, rank=rank, device="CPU:0" if framework == "tensorflow" else "cpu"
        )

        def average(gradients: Any) -> Any:
            if point.sends_momenta:
                return allreduce.average_momenta(gradients)[0]
            for name, value in gradients.items():
                allreduce.start(name, value)
            return allreduce.finish()

        run = in_numpy(average)
        return allreduce, lambda step: run(gradients_of(point, rank=rank, step=step))

    def note(name: str, values: Arrays) -> None:
        arrays.update({f"{name}/{key}": value.copy() for key, value in values.items()})

    def count_bytes(exchange: Callable[[int], Arrays]) -> np.ndarray:
        """What this rank sends in an exchange."""
        runtime.barrier()
        before = bytes_sent()
        for number in range(COUNTED):
            exchange(number)
        runtime.barrier()
        return np.array((bytes_sent() - before) / COUNTED)

    _, exchange = prepare(wide(framework))
    exchange(0)
    arrays["sent/none"] = count_bytes(exchange)
    for method, fields in METHODS.items():
        allreduce, exchange = prepare(wide(framework, **fields))
        states = []
        for number in range(STEPS):
            note(f"{method}/{number}/average", exchange(number))
            states.append({name: value.copy() for name, value in allreduce.state().items()})
            note(f"{method}/{number}/state", states[-1])
        allreduce.load_state(states[-2])
        note(f"{method}/again", exchange(STEPS - 1))
        arrays[f"sent/{method}"] = count_bytes(exchange)

    point = wide(framework, **METHODS[OF_PARTS])
    module = load_framework(framework, "trainer")
    trainer = module.Trainer(point, initial_weights(point), precision=PRECISIONS["fp32"], runtime=runtime)
    batch = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=rank).train_batch(0)
    trainer.train_step(*batch, learning_rate=1e-3, loss_scale=1.0)
    note("own", trainer.own_state())
    trainer.gradients(*batch, loss_scale=1.0)
    trainer.gradient_norms(*batch, loss_scale=1.0)
    trainer.backward(*batch, loss_scale=1.0)
    trainer.allreduce_kept()
    note("own_after_parts", trainer.own_state())
    trainer.allreduce_alone()
    note("own_after_allreduce", trainer.own_state())

    point = wide(framework, **METHODS["onebit"], onebit_warmup_steps=FIRST_PHASE)

    def begin() -> Any:
        return module.Trainer(point, initial_weights(point), precision=PRECISIONS["fp32"], runtime=runtime)

    def train(trainer: Any) -> float:
        return trainer.train_step(*batch, learning_rate=RATE, loss_scale=1.0).gradient_norm

    trainer = begin()
    for _ in range(FIRST_PHASE):
        train(trainer)
    assert trainer.sends_momenta
    note("onebit/before", trainer.state())
    trainer.backward(*batch, loss_scale=1.0)
    note("onebit/own", trainer.allreduce_kept()[0])
    assert not any(value.any() for value in trainer.own_state().values())
    trainer.rewind(len(batch[0]))
    arrays["onebit/norm"] = np.array(train(trainer))
    note("onebit/after", trainer.state())
    state, own = (
        {name: value.copy() for name, value in each.items()} for each in (trainer.state(), trainer.own_state())
    )
    train(trainer)
    note("onebit/last", trainer.state())
    other = begin()
    other.load_state(state)
    other.load_own_state(own)
    train(other)
    note("onebit/last_again", other.state())
    gap = {name: np.full_like(value, np.nan) if rank == 0 and name == GAP else value for name, value in state.items()}
    other.load_state(gap)
    arrays["onebit/norm_with_a_gap"] = np.array(train(other))

    np.savez(folder / f"rank{rank}.npz", **arrays)
    runtime.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
