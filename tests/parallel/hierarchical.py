"""One rank of one twin under a launcher: `python -m tests.parallel.hierarchical FRAMEWORK FOLDER` leaves what it averaged and trained there.

It only records; `test_hierarchical.py` judges.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays
from hvbench.parity.trace import write_trace
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.packages import make_batches, prepare_text
from hvbench.training.weights import initial_weights, trained_shapes
from tests.parity.points import STEPS, four_point

COMPRESSIONS = ("none", "fp16")


def make_point(framework: str, compression: str, *, ranks: int) -> Point:
    """The point whose gradients are averaged: sizes that four ranks do not divide are among them."""
    return Point(
        framework=framework,
        model="tiny",
        num_layers=1,
        vocab_size=259,
        data="synthetic",
        strategy="hierarchical",
        world_size=ranks,
        compression=compression,
    )


def gradients_of(point: Point, *, rank: int) -> Arrays:
    """Made up ones of one rank."""
    random = np.random.default_rng(rank)
    return {name: random.standard_normal(shape, np.float32) for name, shape in trained_shapes(point).items()}


def main(framework: str, folder: Path) -> None:
    """Average made up gradients in each compression, twice: names are used again in a second step; then train."""
    rank, ranks = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
    place = {"local_rank": rank, "threads": 1, "device": "cpu", "strategy": "hierarchical"}
    runtime = load_framework(framework, "runtime").Runtime(rank=rank, world_size=ranks, **place)
    module = load_framework(framework, "trainer")
    found: Arrays = {}
    for compression in COMPRESSIONS:
        point = make_point(framework, compression, ranks=ranks)
        weights = initial_weights(point)
        trainer = module.Trainer(point, weights, precision=PRECISIONS["fp32"], runtime=runtime)
        own = gradients_of(point, rank=rank)
        for _ in range(2):
            averages = average(trainer, own, framework=framework)
        found |= {f"{compression}/{name}": value for name, value in averages.items()}
    np.savez(folder / f"rank{rank}.npz", **found)
    point = four_point(framework, {"strategy": "hierarchical"})
    trainer = module.Trainer(point, initial_weights(point), precision=PRECISIONS["fp32"], runtime=runtime)
    batches, path = make_batches(point, prepare_text(point), rank=rank), folder / f"trace{rank}.npz"
    digests = write_trace(path, point, trainer=trainer, batches=batches, steps=STEPS, is_first=rank == 0)
    (folder / f"digests{rank}.json").write_text(json.dumps(digests))
    runtime.shutdown()


def average(trainer: object, own: Arrays, *, framework: str) -> Arrays:
    """The averages of `own` over the ranks, as a trainer hands them to its all-reduce."""
    if framework == "pytorch":
        import torch

        trainer.kept = {name: torch.from_numpy(value.copy()) for name, value in own.items()}
    else:
        import tensorflow as tf

        trainer.kept = {name: tf.constant(value) for name, value in own.items()}
    return trainer.allreduce_kept()[1]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
