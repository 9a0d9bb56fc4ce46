"""hvbench's own trainers as contenders of `benchmarks/peers.py`, and what their processes share."""

from __future__ import annotations

from functools import cache

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.loss_scale import LossScale
from hvbench.worker.gemm import GemmChoice, choose_gemm
from hvbench.worker.local_ceiling import LocalCeilings


@cache
def shared_runtime(framework: str, *, threads: int, device: str) -> Runtime:
    """The framework in this process, which can be set up once."""
    module = load_framework(framework, "runtime")
    return module.Runtime(rank=0, world_size=1, local_rank=0, threads=threads, device=device)


def choose_library(framework: str, point: Point, *, threads: int) -> GemmChoice:
    """The library of a twin's products, as its worker chooses it."""
    runtime = shared_runtime(framework, threads=threads, device=point.device)
    return choose_gemm(point, runtime, LocalCeilings(framework, runtime), threads=threads)


class Twin:
    """hvbench's own trainer at world size 1, as its worker builds it."""

    framework: str

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        precision = PRECISIONS[point.precision]
        runtime = shared_runtime(self.framework, threads=threads, device=point.device)
        self.scale = LossScale(enabled=precision.loss_scaling)
        self.trainer = load_framework(self.framework, "step").Trainer(
            point, weights, precision=precision, runtime=runtime
        )

    def count_parameters(self) -> int:
        return sum(value.size for value in self.trainer.parameters().values())

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        batch = inputs[None], targets[None]
        result = self.trainer.train_step(*batch, learning_rate=learning_rate, loss_scale=self.scale.scale)
        self.scale.update(skipped=result.skipped)
        return result.loss


class PyTorchTwin(Twin):
    """hvbench in PyTorch."""

    framework = "pytorch"


class TensorFlowTwin(Twin):
    """hvbench in TensorFlow."""

    framework = "tensorflow"
