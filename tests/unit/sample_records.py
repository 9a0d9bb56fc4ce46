"""Builders of Record objects for the tests of `hvbench.analysis`: real classes, invented samples."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from hvbench.records.record import Ceiling, Evaluation, Outcome, ParityStamp, RankSamples, Record
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts

ENVIRONMENT = {"cpu": {"model": "Example CPU", "cores": 2}, "software": {"horovod": "0.28.1"}, "load_average": 0.4}


def make_rank(rank: int = 0, *, step_seconds: list[float], **changes: Any) -> RankSamples:
    """One rank's samples; lists that are not given have the length of `step_seconds`."""
    steps = len(step_seconds)
    values: dict[str, Any] = {
        "rank": rank, "host": "host", "local_rank": rank, "threads": 1, "device": "cpu", "step_seconds": step_seconds,
        "data_seconds": [0.001] * steps, "loss": [5.0 - 0.1 * i for i in range(steps)], "gradient_norm": [1.0] * steps,
        "learning_rate": [1e-3] * steps, "loss_scale": [1.0] * steps, "skipped_steps": [], "evaluations": [],
        "data_prepare_seconds": 0.5, "build_seconds": 0.25,
        "peak_rss_bytes": 500 * 2**20, "start_rss_bytes": 300 * 2**20,
        "peak_device_memory_bytes": None,
    }  # fmt: skip
    return RankSamples(**(values | changes))


def make_ceiling(gemm_flops_per_second: float = 100e9, **changes: Any) -> Ceiling:
    """One rank's ceiling; what is not given follows from the rate of its products."""
    values: dict[str, Any] = {
        "gemm_flops_per_second": gemm_flops_per_second, "gemm_shape": [1024, 1024, 1024],
        "model_gemm_flops_per_second": 0.75 * gemm_flops_per_second,
        "fp32_gemm_flops_per_second": gemm_flops_per_second, "memory_bandwidth_bytes_per_second": 10e9,
        "allreduce_busbw_bytes_per_second": 1e9, "allreduce_bytes": 4096, "is_emulated": False,
    }  # fmt: skip
    return Ceiling(**(values | changes))


def make_evaluation(
    step: int, loss: float | None, *, samples: int = 32, seconds: float = 0.5, training_seconds: float = 1.0
) -> Evaluation:
    """One rank's evaluation after `step` steps."""
    return Evaluation(step=step, loss=loss, samples=samples, seconds=seconds, training_seconds=training_seconds)


def make_stamp(counterpart: str = "tensorflow", **changes: Any) -> ParityStamp:
    """A green stamp with figures of fp32."""
    values: dict[str, Any] = {
        "is_proven": True, "counterpart": counterpart, "updates": 3,
        "logits_relative_error": 1e-7, "loss_relative_error": 2e-7, "gradient_relative_error": 3e-7,
        "update_relative_error": 4e-6, "logits_tolerance": 5e-7, "loss_tolerance": 5e-7, "gradient_tolerance": 1e-6,
        "update_tolerance": 1e-5, "overflows": 0, "worst": "rank0/update/final_norm.gain",
        "worst_relative_error": 4e-6, "worst_tolerance": 1e-5,
    }  # fmt: skip
    return ParityStamp(**(values | changes))


def make_red_stamp(counterpart: str = "tensorflow", **changes: Any) -> ParityStamp:
    """Gradients that were not divided by the accumulation steps."""
    worst = {"worst": "rank0/gradient/block0.mlp.up.weight", "worst_relative_error": 1.0, "worst_tolerance": 1e-6}
    return make_stamp(counterpart, is_proven=False, gradient_relative_error=1.0, **(worst | changes))


def make_record(
    ranks: list[RankSamples] | None = None,
    *,
    repeat: int = 0,
    status: str = "ok",
    message: str | None = None,
    phase: str | None = None,
    warmup_steps: int = 1,
    target_loss: float | None = None,
    seed_per_repeat: bool = False,
    environment: dict[str, Any] | None = None,
    generation: int | None = None,
    parity: ParityStamp | None = None,
    **point_fields: Any,
) -> Record:
    """A record of the `tiny` model (unless `point_fields` says otherwise) with the given samples of each rank."""
    ranks = ranks or []
    point = Point(**({"model": "tiny", "world_size": len(ranks) or 2} | point_fields))
    steps = max(1, max((len(rank.step_seconds) for rank in ranks), default=2) - warmup_steps)
    return Record(
        suite="example", point_id=point.point_id, point=point, repeat=repeat, generation=generation,
        measure=MeasureSettings(
            warmup_steps=warmup_steps, steps=steps, target_loss=target_loss, seed_per_repeat=seed_per_repeat
        ),
        outcome=Outcome(status=status, message=message, phase=phase, rank=None if status == "ok" else 0),
        model=model_facts(point), environment=ENVIRONMENT if environment is None else environment, ranks=ranks,
        parity=parity,
        started_at=f"2024-05-06T07:0{repeat}:00Z", duration_seconds=3.0,
    )  # fmt: skip


def make_launch(
    point: dict[str, Any],
    *,
    repeat: int = 0,
    steps: int = 13,
    evaluate_every: int = 0,
    target_loss: float | None = None,
) -> Record:
    """A plausible launch of 2 ranks of the `small` model: noisy steps, a slow first one, a falling loss."""
    point = {"model": "small", "world_size": 2} | point
    random = np.random.default_rng([repeat, *Point(**point).point_id.encode()])
    is_tensorflow = point["framework"] == "tensorflow"
    batch, accumulation = point.get("micro_batch_size", 8), point.get("gradient_accumulation_steps", 1)
    seconds = (0.02 + 0.025 * batch * accumulation * (0.8 if is_tensorflow else 1.0)) * (
        0.75 if point.get("precision") == "bf16" else 1.0
    )
    seconds = (seconds + (0.04 if point.get("compression") == "fp16" else 0.02)) * random.normal(1.0, 0.02)
    curve = (
        3.0 + 5.3 * np.exp(-np.arange(steps) / 40) + np.random.default_rng(batch * accumulation).normal(0, 0.05, steps)
    )
    ranks = []
    for rank in range(2):
        times = seconds * random.lognormal(0.0, 0.04, steps)
        times[0] += 6.0 if is_tensorflow else 0.4
        marks = range(0, steps + 1, evaluate_every) if evaluate_every else ()
        evaluations = [
            make_evaluation(
                mark, float(3.1 + 5.3 * math.exp(-mark / 40)), training_seconds=float(times[:mark].sum()) + 0.001 * mark
            )
            for mark in marks
        ]
        loss = (curve + random.normal(0, 0.002, steps)).tolist()
        ranks.append(make_rank(rank, step_seconds=times.tolist(), loss=loss, evaluations=evaluations))
    return make_record(ranks, repeat=repeat, warmup_steps=3, target_loss=target_loss, **point)


def make_quickstart(*, repeats: int = 1) -> list[Record]:
    """2 frameworks x micro-batch {4, 8} x accumulation {1, 4} x precision {fp32, bf16} x compression {none, fp16}."""
    names = ("framework", "micro_batch_size", "gradient_accumulation_steps", "precision", "compression")
    values = (("pytorch", "tensorflow"), (4, 8), (1, 4), ("fp32", "bf16"), ("none", "fp16"))
    points = [dict(zip(names, choice, strict=True)) for choice in product(*values)]
    return [make_launch(point, repeat=repeat) for repeat in range(repeats) for point in points]


def make_convergence(*, repeats: int = 1, target_loss: float = 4.0) -> list[Record]:
    """Both frameworks, 100 steps, an evaluation every 20."""
    return [
        make_launch({"framework": framework}, repeat=repeat, steps=100, evaluate_every=20, target_loss=target_loss)
        for repeat in range(repeats)
        for framework in ("pytorch", "tensorflow")
    ]
