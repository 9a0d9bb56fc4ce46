"""One process in which contenders of one model and precision take turns of a second on one device.

`benchmarks/gpu.py` starts it as `python -m benchmarks.gpu_race ORDER OUT`, both JSON files; OUT is written anew after every
round, so that what was measured survives a process that is ended. All contenders lie in the device's memory at the same time,
train from the same weights on the same batches, and end every step with the loss on the host.

NAME+SETTING+SETTING is a contender with settings that it has not as it is, of SETTINGS.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Samples
from benchmarks.contenders import IMPLEMENTATIONS
from benchmarks.gpu_stream import profile_stream
from benchmarks.twins import shared_runtime
from hvbench.errors import UsageError
from hvbench.frameworks.contract import Arrays
from hvbench.io.atomic import write_json
from hvbench.records.float32 import require_ieee_float32
from hvbench.records.nvml import Gpu
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.weights import initial_weights
from hvbench.worker.local_ceiling import LocalCeilings

SETTINGS = {  # knobs of the point
    "compile": {"compile": "default"},
    "max": {"compile": "max"},
    "recompute": {"recompute": "block"},
}
OF_PEERS = ("compile", "max")
WARMUP_STEPS = 3
LEAST_STEPS = 3  # in a turn
LINE_LENGTH = 300  # of what is said of a contender that fails


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one process is to do."""

    knobs: dict[str, Any]  # of the point that all train
    contenders: list[str]
    rounds: int
    turn_seconds: float
    threads: int
    seed: int  # of the order within rounds
    prepare_until: float  # by the clock of time.time(): no contender is built after it
    race_until: float  # no round is begun that would end after it


def parse_name(name: str) -> tuple[str, list[str]]:
    """Implementation and settings; UsageError for what there is not."""
    base, *settings = name.split("+")
    allowed = SETTINGS if base == "pytorch" else OF_PEERS
    implementation = IMPLEMENTATIONS.get(base)
    if implementation is None or "torch" not in implementation.needs or not set(settings) <= set(allowed):
        usual = "pytorch, huggingface, plain-torch, each also +compile or +max, pytorch also +recompute"
        raise UsageError(f"unknown contender {name}; allowed: {usual}")
    return base, settings


def knobs_of(name: str) -> dict[str, str]:
    """The knobs that the settings in a contender's name stand for."""
    return {knob: value for setting in parse_name(name)[1] for knob, value in SETTINGS[setting].items()}


class Entrant:
    """One contender in memory, warmed up."""

    def __init__(self, name: str, point: Point, weights: Arrays, *, threads: int) -> None:
        base, _ = parse_name(name)
        where = IMPLEMENTATIONS[base]
        own = point.model_copy(update=knobs_of(name))
        self.name = name
        self.memory = DeviceMemory(point.device)
        begun = time.perf_counter()
        trained = getattr(importlib.import_module(where.module), where.cls)(own, weights, threads=threads)
        self.build_seconds = time.perf_counter() - begun
        self.parameters = trained.count_parameters()
        self.samples = Samples(trained, own)
        for _ in range(1 + WARMUP_STEPS):
            self.samples.take_step()
        self.peak_device_memory_bytes = self.memory.peak_bytes()
        self.stream: dict[str, Any] | None = None

    def take_turn(self, seconds: float, gpu: Gpu | None) -> dict[str, Any]:
        """Train for about `seconds`; the steps, and the energy that the card drew meanwhile."""
        samples, done = self.samples, len(self.samples.loss)
        steps = max(LEAST_STEPS, math.ceil(seconds / min(samples.step_seconds[1:])))
        before = gpu and gpu.energy_joules()
        for _ in range(steps):
            samples.take_step()
        after = gpu and gpu.energy_joules()
        return {
            "contender": self.name,
            "warmup_steps": 0,
            "parameters": self.parameters,
            "step_seconds": samples.step_seconds[done:],
            "cpu_seconds": samples.cpu_seconds[done:],
            "loss": samples.loss[done:],
            "joules": None if before is None or after is None else after - before,
        }

    def describe(self) -> dict[str, Any]:
        """What was learnt of it beside its turns."""
        return {
            "build_seconds": self.build_seconds,
            "first_step_seconds": self.samples.step_seconds[0],
            "first_loss": self.samples.loss[0],
            "peak_device_memory_bytes": self.peak_device_memory_bytes,
            "stream": self.stream,
        }


class DeviceMemory:
    """What one contender adds to the device's memory at most, while the others are idle; None on a processor."""

    def __init__(self, device: str) -> None:
        self.is_cuda = device == "cuda"
        if self.is_cuda:
            import torch

            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def peak_bytes(self) -> int | None:
        """The largest so far, of live tensors."""
        if not self.is_cuda:
            return None
        import torch

        return torch.cuda.max_memory_allocated() - self.before


class Race:
    """The contenders of one order and what they have done so far."""

    def __init__(self, order: Order, out: Path) -> None:
        self.order = order
        self.out = out
        self.point = Point(**order.knobs, framework="pytorch", world_size=1)
        self.weights = initial_weights(self.point)
        self.gpu = Gpu() if self.point.device == "cuda" else None
        self.failed: dict[str, str] = {}
        self.entrants: list[Entrant] = []
        self.launches: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.ceilings: dict[str, Any] = {}

    def run(self) -> None:
        """Ceilings, then one contender after the other into memory, then rounds, then what the device waits for.

        Without rounds the contenders are built alone, which leaves what is compiled in the compilers' caches.
        """
        runtime = shared_runtime("pytorch", threads=self.order.threads, device=self.point.device)
        if self.order.rounds:
            self.ceilings = LocalCeilings("pytorch", runtime).search(self.point).model_dump(mode="json")
        for name in self.order.contenders:
            self.enter(name)
            self.keep()
        longest = 0.0
        for number in range(self.order.rounds):
            begun = time.time()
            if begun + longest > self.order.race_until:
                break
            self.launches += [{**self.case, "round": number, **turn} for turn in self.take_round(number)]
            self.states += [self.gpu.state()] if self.gpu else []
            longest = max(longest, time.time() - begun)
            self.keep()
        if self.point.device == "cuda" and self.launches:
            for entrant in self.entrants:
                entrant.stream = profile_stream(entrant.samples.take_step)
        self.keep()

    def enter(self, name: str) -> None:
        """Build and warm up a contender; one that fails is named, and the others go on."""
        if time.time() > self.order.prepare_until:
            self.failed[name] = "left out: no time was left to build it"
            return
        try:
            self.entrants.append(Entrant(name, self.point, self.weights, threads=self.order.threads))
        except Exception as error:  # memory, a compiler: whatever it is, it is this contender's
            text = " ".join(str(error).split())[:LINE_LENGTH]
            self.failed[name] = f"{type(error).__name__}: {text}"
        say(f"{name}: {self.failed.get(name) or f'first step {self.entrants[-1].samples.step_seconds[0]:.1f} s'}")

    def take_round(self, number: int) -> Iterator[dict[str, Any]]:
        """One turn of everybody; the order is drawn anew every second round, which runs it backwards."""
        drawn = np.random.default_rng((self.order.seed, number // 2)).permutation(len(self.entrants))
        for index in drawn if number % 2 == 0 else drawn[::-1]:
            yield self.entrants[index].take_turn(self.order.turn_seconds, self.gpu)

    @property
    def case(self) -> dict[str, Any]:
        """What all launches have in common."""
        point = self.point
        facts = {name: getattr(point, name) for name in ("model", "precision", "sequence_length", "micro_batch_size")}
        return {**facts, "tokens_per_step": point.tokens_per_step}

    def keep(self) -> None:
        """Write what there is."""
        result = {
            "order": asdict(self.order),
            "case": self.case,
            "model_flops_per_token": model_facts(self.point).model_flops_per_token,
            "ceilings": self.ceilings,
            "contenders": {each.name: each.describe() for each in self.entrants},
            "failed": self.failed,
            "card": self.states,
            "launches": self.launches,
        }
        write_json(self.out, result)


def say(line: str) -> None:
    """A line of progress."""
    print(f"  {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Do what one file orders and write what came of it into the other."""
    require_ieee_float32()
    order_path, out = map(Path, arguments)
    Race(Order(**json.loads(order_path.read_text(encoding="utf-8"))), out).run()


if __name__ == "__main__":
    main(sys.argv[1:])
