"""One launch of one contender: a fresh process that trains, in turns with the others, and leaves its samples in a file.

`benchmarks/peers.py` starts it as `python -m benchmarks.contender ORDER OUT`, both JSON files. Every contender gets the
same initial weights, the same batches and the same learning rates, and takes the same number of threads.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.contenders import TWINS, parse_contender
from benchmarks.twins import choose_library
from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.contract import Arrays
from hvbench.records.environment import describe_load
from hvbench.records.float32 import require_ieee_float32
from hvbench.records.record import finite_or_none
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.schedule import point_learning_rate
from hvbench.training.weights import initial_weights
from hvbench.worker.memory import peak_rss_bytes, reset_peak_rss, rss_bytes
from hvbench.worker.turns import Turns, join_turns

LEAST_TIMED_STEPS = 2  # of a contender that is so slow that its seconds are over before


class Trained(Protocol):
    """A model in training: whatever it takes to make one step."""

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        """Build the model of `point` with `weights`, by canonical name."""

    def count_parameters(self) -> int:
        """Trained numbers, tied ones once."""

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        """One AdamW update with clipping from int32 tokens (batch, sequence); the mean loss before it, in nats.

        NaN where nothing is trained.
        """


class Samples:
    """The steps of one contender, each with its seconds by the wall, its processor's seconds and its loss."""

    def __init__(self, trained: Trained, point: Point) -> None:
        self.trained = trained
        self.point = point
        self.batches = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=0)
        self.step_seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.loss: list[float] = []

    def take_step(self) -> None:
        """Train one more step; its batch is drawn before the clock starts."""
        index = len(self.loss)
        inputs, targets = (tokens[0] for tokens in self.batches.train_batch(index))
        rate = point_learning_rate(self.point, index)
        begun, cpu_begun = time.perf_counter(), time.process_time()
        self.loss.append(self.trained.train_step(inputs, targets, learning_rate=rate))
        self.cpu_seconds.append(time.process_time() - cpu_begun)
        self.step_seconds.append(time.perf_counter() - begun)


def train(samples: Samples, order: dict[str, Any], turns: Turns) -> None:
    """Take the steps of the order: the first, which traces and compiles, for itself; all others in turns.

    A slow contender stops early: after `seconds` of timed steps.
    """
    samples.take_step()
    warmup_steps, total = order["warmup_steps"], order["warmup_steps"] + order["steps"]
    with turns.at(0, steps=total - 1):
        while len(samples.loss) < total:
            timed = samples.step_seconds[warmup_steps:]
            if len(timed) >= LEAST_TIMED_STEPS and sum(timed) > order["seconds"]:
                break
            turns.step()
            samples.take_step()


def run_order(order: dict[str, Any]) -> dict[str, Any]:
    """Build the contender that the order names and train it; what `benchmarks.ratios` reads of a launch, less its round."""
    contender = parse_contender(order["contender"])
    is_memory_kept = contender.variant.keeps_freed_memory and keep_freed_memory()
    load_before = describe_load()
    point = Point(**order["knobs"] | contender.variant.knobs, framework="pytorch", world_size=1, device="cpu")
    for module in contender.implementation.loads:
        importlib.import_module(module)
    choice = None
    if contender.base in TWINS:
        choice = choose_library(
            contender.base, point.model_copy(update={"framework": contender.base}), threads=order["threads"]
        )
        point = point.model_copy(update={"gemm": choice.library})
    module, name = contender.place
    cls = getattr(importlib.import_module(module), name)
    reset_peak_rss()
    base_rss_bytes = rss_bytes()
    begun = time.perf_counter()
    trained: Trained = cls(point, initial_weights(point), threads=order["threads"])
    build_seconds = time.perf_counter() - begun
    samples = Samples(trained, point)
    with join_turns(rank=0, world_size=1) as turns:
        train(samples, order, turns)
    return {
        "contender": order["contender"],
        "model": point.model,
        "precision": point.precision,
        "sequence_length": point.sequence_length,
        "parameters": trained.count_parameters(),
        "tokens_per_step": point.tokens_per_step,
        "warmup_steps": order["warmup_steps"],
        "build_seconds": build_seconds,
        "step_seconds": samples.step_seconds,
        "cpu_seconds": samples.cpu_seconds,  # of all threads: what a busy machine changes less
        "loss": [finite_or_none(value) for value in samples.loss],
        "gemm": choice.library if choice else None,
        "base_rss_bytes": base_rss_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
        "keeps_freed_memory": is_memory_kept,
        "load_before": load_before,
        "load_after": describe_load(),
    }


def main(order_path: Path, out_path: Path) -> None:
    """Do what one file orders and write what came of it into the other."""
    require_ieee_float32()
    order = json.loads(order_path.read_text(encoding="utf-8"))
    out_path.write_text(json.dumps(run_order(order)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
