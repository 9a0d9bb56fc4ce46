"""One rank of one twin under a launcher: `python -m tests.parallel.sharded FRAMEWORK FOLDER` leaves its tensors there.

It only records; `test_sharding.py` judges.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays
from hvbench.registry import describe_framework
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.packages import make_batches, prepare_text
from hvbench.training.weights import initial_weights
from tests.parallel.sent import bytes_sent

RANKS = 3  # by which no size of a tensor can be divided, and more than a classifier has classes
STEPS = 2  # by whole ranks, and then by either kind
MODE = "parameters"
NATIVE = "native"  # the framework's own sharding of the optimizer, where it has one
KNOBS = {
    "model": "tiny", "num_layers": 1, "hidden_size": 128, "objective": "classification", "num_classes": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
    "recompute": "block",     "dropout": 0.1, "layer_lr_decay": 0.9, "world_size": RANKS,
}  # fmt: skip


def main(framework: str, folder: Path) -> None:
    """Train `STEPS` steps with everything on each rank, go on from there with and without shards, and go on from the shards with everything."""
    modules = {name: load_framework(framework, name) for name in ("runtime", "trainer")}
    place = {"rank": int(os.environ["HOROVOD_RANK"]), "local_rank": int(os.environ["HOROVOD_LOCAL_RANK"])}
    runtime = modules["runtime"].Runtime(world_size=RANKS, strategy="horovod", threads=1, device="cpu", **place)
    points = {mode: Point(**KNOBS, framework=framework, shard=mode) for mode in ("none", MODE)}
    precision = PRECISIONS["fp32"]
    trainers = {
        mode: modules["trainer"].Trainer(point, initial_weights(point), precision=precision, runtime=runtime)
        for mode, point in points.items()
    }
    point = points["none"]
    batches = make_batches(point, prepare_text(point), rank=runtime.rank)
    arrays: Arrays = {}

    def train(mode: str, steps: range, **choices: bool) -> list[float]:
        results = [
            trainers[mode].train_step(*batches.train_batch(step), learning_rate=1e-3, loss_scale=1.0, **choices)
            for step in steps
        ]
        return [value for result in results for value in (result.loss, result.gradient_norm)]

    def record(name: str, values: Arrays) -> None:
        arrays.update({f"{name}/{key}": value.copy() for key, value in values.items()})

    train("none", range(STEPS))
    begun = {name: value.copy() for name, value in trainers["none"].state().items()}
    trainers[MODE].load_state(begun)
    for mode, trainer in trainers.items():
        arrays[f"{mode}/results"] = np.array(train(mode, range(STEPS, 2 * STEPS)))
        record(mode, trainer.state())
    shared, batch = trainers[MODE], batches.train_batch(9)
    runtime.barrier()
    begun_bytes = bytes_sent()
    train(MODE, range(2 * STEPS, 3 * STEPS))
    runtime.barrier()
    arrays["sent"] = np.array((bytes_sent() - begun_bytes) / STEPS)
    shared.load_state(
        {name.removeprefix(f"{MODE}/"): value for name, value in arrays.items() if name.startswith(f"{MODE}/")}
    )
    before = {name: value.copy() for name, value in shared.state().items()}
    norms = shared.gradient_norms(*batch, loss_scale=8.0)
    arrays["norms"] = np.array([*norms.micro_batches, norms.averaged])
    shared.backward(*batch, loss_scale=1.0)
    own, averages = shared.allreduce_kept()
    record("own", own)
    record("averages", averages)
    shared.allreduce_alone()
    record("parts of steps", shared.state())
    train(MODE, range(1), with_allreduce=False)  # as ablations do, which then go back
    shared.load_state(before)
    record("again", shared.state())
    trainers["none"].load_state(before)
    for mode, trainer in trainers.items():
        arrays[f"evaluation/{mode}"] = trainer.evaluate(*(array[0] for array in batch))
    slots = trainers[MODE].optimizer.slots
    arrays["kept"] = count_values(slots)
    if "optimizer" in describe_framework(framework).native_shards:
        over_horovod, join = runtime.ranks, load_framework(framework, "ranks").join
        runtime.ranks = join("native", rank=runtime.rank, world_size=RANKS)
        own = Point(**KNOBS | {"recompute": "none"}, framework=framework, strategy=NATIVE, shard="optimizer")
        trainers[NATIVE] = modules["trainer"].Trainer(own, initial_weights(own), precision=precision, runtime=runtime)
        trainers[NATIVE].load_state(begun)
        arrays[f"{NATIVE}/results"] = np.array(train(NATIVE, range(STEPS, 2 * STEPS)))
        record(NATIVE, trainers[NATIVE].state())
        runtime.barrier()
        begun_bytes = bytes_sent()
        train(NATIVE, range(2 * STEPS, 3 * STEPS))
        runtime.barrier()
        arrays[f"sent {NATIVE}"] = np.array((bytes_sent() - begun_bytes) / STEPS)
        arrays[f"kept {NATIVE}"] = count_values(trainers[NATIVE].optimizer.slots)
        runtime.ranks.leave()
        runtime.ranks = over_horovod
    np.savez(folder / f"rank{runtime.rank}.npz", **arrays)
    runtime.shutdown()


def count_values(slots: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
    """Of each slot, the values that a rank keeps."""
    return np.array([sum(int(np.prod(value.shape)) for value in slot.values()) for slot in slots.values()])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
