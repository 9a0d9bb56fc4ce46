"""hvbench's own trainers as contenders of `benchmarks/peers.py`, and what their processes share."""

from __future__ import annotations

from functools import cache

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.loss_scale import LossScale
from hvbench.training.products import model_products
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
        self.trainer = load_framework(self.framework, "trainer").Trainer(
            point, weights, precision=precision, runtime=runtime
        )

    def count_parameters(self) -> int:
        return sum(value.size for value in self.trainer.parameters().values())

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        batch = inputs[None], targets[None]
        result = self.trainer.train_step(*batch, learning_rate=learning_rate, loss_scale=self.scale.scale)
        self.scale.update(skipped=result.skipped)
        return result.loss


class Floor:
    """What a step of a twin takes at least: all products of a micro-batch, one after the other, then attention forward and
    backward for each block, bare, at the rates of here and now."""

    framework: str

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        self.runtime = shared_runtime(self.framework, threads=threads, device=point.device)
        self.point = point
        self.parameters = sum(value.size for value in weights.values())
        self.dtype = PRECISIONS[point.precision].compute_dtype
        choices = {"dtype": self.dtype, "gemm": point.gemm, "device": point.device}
        prepare_product = load_framework(self.framework, "ceiling").prepare_product
        self.products = [prepare_product(each, repeats=each.count, **choices) for each in model_products(point)]
        B, T, W, H = point.micro_batch_size, point.sequence_length, point.hidden_size, point.num_heads
        self.shape = (3, B, H, T, W // H)  # of queries, keys and values

    def count_parameters(self) -> int:
        return self.parameters

    def attend(self) -> None:
        """Attention of one block, and its gradients."""
        raise NotImplementedError

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        for run in self.products:
            run()
        for _ in range(self.point.num_layers):
            self.attend()
        self.runtime.synchronize()
        return float("nan")


class PyTorchTwin(Twin):
    """hvbench in PyTorch."""

    framework = "pytorch"


class TensorFlowTwin(Twin):
    """hvbench in TensorFlow."""

    framework = "tensorflow"
