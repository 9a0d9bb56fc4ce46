"""One launch of one contender: a fresh process that trains some cases and leaves its samples in a file.

`benchmarks/peers.py` starts it as `python -m benchmarks.contender ORDER OUT`, both JSON files. Every contender gets the
same initial weights, the same batches and the same learning rates, takes the same number of threads, and keeps freed memory.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.contract import Arrays
from hvbench.records.environment import describe_load
from hvbench.records.float32 import require_ieee_float32
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.schedule import point_learning_rate
from hvbench.training.weights import initial_weights

# Contender -> the module and the class that hold it; each is imported in its own process only.
CONTENDERS = {
    "pytorch": ("benchmarks.contender", "PyTorchTwin"),
    "huggingface": ("benchmarks.peers_pytorch", "HuggingFace"),
    "plain-torch": ("benchmarks.peers_pytorch", "PlainTorch"),
    "tensorflow": ("benchmarks.contender", "TensorFlowTwin"),
    "keras-hub": ("benchmarks.peers_tensorflow", "KerasHub"),
}


class Contender(Protocol):
    """A model in training: whatever it takes to make one step."""

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        """Build the model of `point` with `weights`, by canonical name."""

    def count_parameters(self) -> int:
        """Trained numbers, tied ones once."""

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        """One AdamW update with clipping from int32 tokens (batch, sequence); the mean loss before it, in nats."""


class Twin:
    """hvbench's own trainer at world size 1, as its worker builds it."""

    framework: str
    runtimes: dict[str, Any] = {}  # one a process: TensorFlow's threads can be set once only

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        if self.framework not in self.runtimes:
            self.runtimes[self.framework] = load_framework(self.framework, "runtime").Runtime(
                rank=0, world_size=1, local_rank=0, threads=threads, device="cpu"
            )
        self.trainer = load_framework(self.framework, "step").Trainer(
            point, weights, precision=PRECISIONS[point.precision], runtime=self.runtimes[self.framework]
        )

    def count_parameters(self) -> int:
        return sum(value.size for value in self.trainer.parameters().values())

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        result = self.trainer.train_step(inputs[None], targets[None], learning_rate=learning_rate, loss_scale=1.0)
        return result.loss


class PyTorchTwin(Twin):
    """hvbench in PyTorch."""

    framework = "pytorch"


class TensorFlowTwin(Twin):
    """hvbench in TensorFlow."""

    framework = "tensorflow"


def run_case(name: str, knobs: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    """Train contender `name` at the point that `knobs` describe; seconds and loss of every step, the first included."""
    point = Point(**knobs, framework="pytorch", world_size=1)
    text = corpus.prepare(point.data, vocab_size=point.vocab_size)
    batches = Batches(point, text, rank=0)
    module, cls = CONTENDERS[name]
    begun = time.perf_counter()
    contender: Contender = getattr(importlib.import_module(module), cls)(
        point, initial_weights(point), threads=order["threads"]
    )
    build_seconds = time.perf_counter() - begun
    step_seconds, cpu_seconds, losses = [], [], []
    # A slow contender stops early: after `seconds` of timed steps, with at least two.
    while len(step_seconds) < order["warmup_steps"] + order["steps"]:
        timed = step_seconds[order["warmup_steps"] :]
        if len(timed) >= 2 and sum(timed) > order["seconds"]:
            break
        inputs, targets = (tokens[0] for tokens in batches.train_batch(len(losses)))
        rate = point_learning_rate(point, len(losses))
        begun, cpu_begun = time.perf_counter(), time.process_time()
        losses.append(contender.train_step(inputs, targets, learning_rate=rate))
        cpu_seconds.append(time.process_time() - cpu_begun)
        step_seconds.append(time.perf_counter() - begun)
    return {
        "contender": name,
        "precision": point.precision,
        "sequence_length": point.sequence_length,
        "parameters": contender.count_parameters(),
        "tokens_per_step": point.tokens_per_step,
        "warmup_steps": order["warmup_steps"],
        "build_seconds": build_seconds,
        "step_seconds": step_seconds,
        "cpu_seconds": cpu_seconds,  # of all threads: what a busy machine changes less
        "loss": losses,
    }


def main(order_path: Path, out_path: Path) -> None:
    """Run every case of the order in this process, in the order given."""
    require_ieee_float32()
    order = json.loads(order_path.read_text(encoding="utf-8"))
    load_before = describe_load()
    is_memory_kept = keep_freed_memory()  # as hvbench's own have it: a ratio is not to show the allocator
    cases = [run_case(order["contender"], knobs, order) for knobs in order["cases"]]
    facts = {"load_before": load_before, "load_after": describe_load(), "keeps_freed_memory": is_memory_kept}
    out_path.write_text(json.dumps([case | facts for case in cases]), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
