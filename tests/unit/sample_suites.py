"""Runs of the shipped suites at known speeds: every launch's step is made of a forward pass, an all-reduce and an update."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.records.record import Ablation, Record
from hvbench.spec.point import Point
from hvbench.spec.suite import Suite, load_suite
from tests.unit.sample_records import make_rank, make_record, make_stamp

SUITES = Path(__file__).parents[2] / "suites"
COMMAND = "hvbench sweep example --np 2"
WORLDS = (1, 2, 4)


def make_run_of(name: str, *, repeats: int = 5, noise: float = 0.004) -> Run:
    """A run of a shipped suite; see `make_runs_of`."""
    return make_runs_of(load_suite(SUITES / f"{name}.toml"), repeats=repeats, noise=noise)


def seconds_of(point: Point) -> tuple[float, float, float]:
    """(one forward pass, all-reduce, update) in seconds, as if they were known: PyTorch needs 5 % more of all."""
    share = {"fp32": 1.0, "bf16": 0.8, "fp16": 1.3}[point.precision] * (1.05 if point.framework == "pytorch" else 1.0)
    if point.compile != "none":
        share *= 0.9 if point.framework == "pytorch" else 1.25
    share *= 1.0 if point.recompute == "none" else 1.3
    share *= 1.0 + max(0, point.sequence_length - 128) / (8192 if point.attention == "fused" else 4096)
    forward = share * (0.02 + 0.01 * point.micro_batch_size * max(1.0, point.sequence_length / 128)) / 3
    wire = {"none": 0.05, "fp16": 0.07, "topk": 0.03, "int8": 0.06, "powersgd": 0.02, "onebit": 0.04}[point.compression]
    wire += 0.02 * (point.fusion_threshold_bytes == 0)
    wire *= {"native": 0.8, "parameter_server": 2.0, "parameter_server_async": 1.5, "local": 0.0}.get(point.strategy, 1)
    return forward, 0.0 if point.world_size == 1 else wire * share, 0.02 * share


def make_runs_of(suite: Suite, *, repeats: int = 5, noise: float = 0.004) -> Run:
    """Launches of every point of a suite on up to four ranks; the launches of a round share what moves the machine."""
    records = []
    proven = {point.point_id: point for point in suite.points()}
    for repeat in range(repeats):
        drift = float(np.random.default_rng(repeat).normal(1.0, 0.1))
        for point in proven.values():
            world = point.world_size or 2
            if world in WORLDS:
                fixed = point.model_copy(update={"world_size": world})
                records.append(make_launch_of(fixed, suite, repeat=repeat, drift=drift, noise=noise))
    request = {"suite": suite.name, "question": suite.question, "compares": list(suite.compares), "command": COMMAND}
    request |= {"together": [dict(group) for group in suite.together]}
    return Run(records, request)


def make_launch_of(point: Point, suite: Suite, *, repeat: int, drift: float, noise: float) -> Record:
    random = np.random.default_rng([repeat, *point.point_id.encode()])
    passes, (forward, wire, update) = point.gradient_accumulation_steps, seconds_of(point)
    spread = drift * float(random.lognormal(0.0, noise))
    parts = np.cumsum([forward * passes, 2 * forward * passes, update, wire]) * spread
    step, steps = float(parts[-1]), suite.measure.warmup_steps + 6
    rounds = 3 if suite.measure.ablation_rounds else 0
    ablation = Ablation(
        **{
            name: [float(value)] * rounds
            for name, value in zip(
                ("forward_seconds", "backward_seconds", "local_step_seconds", "step_seconds", "allreduce_seconds"),
                (*parts, wire * spread),
                strict=True,
            )
        }
    )
    first = step + (0.0 if point.compile == "none" else {"pytorch": 20.0, "tensorflow": 4.0}[point.framework] * spread)
    losses = [5.0 - 0.1 * i + (0.001 if point.precision != "fp32" else 0.0) for i in range(steps)]
    memory = int(2**20 * (300 + 20 * point.micro_batch_size * (0.7 if point.precision != "fp32" else 1.0)))
    fields = point.model_dump()
    if limit := suite.measure.memory_limit_bytes:
        matrix = (6000 if point.attention == "plain" else 100) * point.sequence_length / 8192
        memory = int(2**20 * (600 + matrix * (1.0 if point.recompute == "none" else 0.3)))
        if memory > limit:
            return limited(make_record([], repeat=repeat, status="oom", **fields), limit)
    ranks = [
        make_rank(
            rank, step_seconds=[first, *[step] * (steps - 1)], data_seconds=[0.0002 * spread] * steps, loss=losses,
            ablation=ablation if rounds else None, peak_rss_bytes=memory,
        )
        for rank in range(point.world_size)
    ]  # fmt: skip
    record = make_record(ranks, repeat=repeat, warmup_steps=suite.measure.warmup_steps, parity=make_stamp(), **fields)
    return limited(record, limit)


def limited(record: Record, limit_bytes: int | None) -> Record:
    """The same launch under a limit of memory."""
    return record.model_copy(update={"measure": record.measure.model_copy(update={"memory_limit_bytes": limit_bytes})})
