"""How long jobs should take and what memory they should need, roughly, from their points alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache

from hvbench.plan.jobs import Job, worker_group
from hvbench.records.environment import multiplies_natively, usable_cores
from hvbench.registry import describe_framework
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts, recomputed_flops_per_token
from hvbench.training.memory import estimate_memory
from hvbench.training.products import product_question
from hvbench.training.schedule import tokens_before

STEP_EFFICIENCY = 0.35  # of the rate of plain matrix products, what a whole training step reaches
LAUNCH_SECONDS = 6.0  # import of a framework, per rank that shares a core
POINT_SECONDS = 1.0
SCRIPT_SECONDS = 20.0  # what people's own training does before its first step
SCRIPT_STEP_SECONDS = 0.5
CEILING_SECONDS = 2.0  # what hvbench.worker.ceiling costs a rank that has a core to itself, once for each question
CEILING_LAUNCHES = 3  # that read a ceiling; later ones on the same machine use what these read
# A round of ablations, in whole steps: three of them, one without an update, a forward pass, an all-reduce.
ABLATION_STEPS = 5

# A point may take this many times its estimate, and never less than the floor, before it counts as hung.
TIMEOUT_FACTOR = 10.0
TIMEOUT_FLOOR_SECONDS = 300.0
SCRIPT_TIMEOUT_SECONDS = 1800.0  # of a launch of a script, for which there is no estimate


def estimate_seconds(job: Job, settings: MeasureSettings) -> float:
    """Rough wall time of one job on this host's cores, for progress and for time limits; right within a factor of 3.

    Of a script nothing is known before it has run: a guess.
    """
    if isinstance(job.point, ScriptPoint):
        return SCRIPT_SECONDS + SCRIPT_STEP_SECONDS * (settings.warmup_steps + settings.steps)
    facts = model_facts(job.point)
    steps = settings.warmup_steps + settings.steps
    tokens = count_tokens(job.point, settings)
    flops_per_token = facts.model_flops_per_token + recomputed_flops_per_token(job.point)
    seconds = tokens * flops_per_token / (measure_gemm_flops_per_second() * STEP_EFFICIENCY)
    if settings.noise_every:
        steps += steps // settings.noise_every + 1
    if settings.ablation_rounds:
        steps += ABLATION_STEPS * (settings.ablation_rounds + 1)
    if job.point.link_bits_per_second:
        seconds += steps * link_seconds(facts.allreduce_bytes_per_step, job.point)
    framework = describe_framework(job.point.framework)
    seconds += framework.compile_seconds if job.point.compile != "none" else 0.0
    return seconds + POINT_SECONDS + framework.trace_seconds


def count_tokens(point: Point, settings: MeasureSettings) -> float:
    """Tokens of all ranks that a job computes, in units of training: a forward pass alone costs a third of a token."""
    steps = settings.warmup_steps + settings.steps
    # Where a checkpoint goes on, the warm-ups of batch and length may be over: the dearest case.
    first = max(point.batch_warmup_steps, point.length_warmup_steps) if point.initial_checkpoint else 0
    tokens = tokens_before(point, first + steps) - tokens_before(point, first)
    if settings.noise_every:  # forward and backward once more
        tokens += tokens // steps * (steps // settings.noise_every + 1)
    if settings.ablation_rounds:  # and an untimed one
        tokens += point.tokens_per_step * ABLATION_STEPS * (settings.ablation_rounds + 1)
    if not settings.evaluate_every:
        return tokens
    evaluations = -(-steps // settings.evaluate_every) + 1  # of the untrained model, too
    ranks = point.world_size or 1
    batches = -(-settings.evaluate_samples // (ranks * point.micro_batch_size))  # the last one is filled up
    return tokens + evaluations * ranks * batches * point.micro_batch_size * point.sequence_length / 3


def time_limit_seconds(job: Job, settings: MeasureSettings) -> float:
    """Seconds after which one job counts as hung: those that `settings` state, or else many times its estimate."""
    if isinstance(job.point, ScriptPoint):
        return settings.timeout_seconds or SCRIPT_TIMEOUT_SECONDS
    return settings.timeout_seconds or max(TIMEOUT_FLOOR_SECONDS, TIMEOUT_FACTOR * estimate_seconds(job, settings))


def estimate_sweep_seconds(jobs: Sequence[Job], settings: MeasureSettings) -> float:
    """Rough wall time of a sweep, launches included."""
    return estimate_setup_seconds(jobs, settings) + sum(estimate_seconds(job, settings) for job in jobs)


def estimate_setup_seconds(jobs: Sequence[Job], settings: MeasureSettings) -> float:
    """Of that what sets of workers take to start and to find their ceilings."""
    launches = {(job.repeat, worker_group(job.point)) for job in jobs}
    crowding = max((job.point.world_size or 1 for job in jobs), default=1) / usable_cores()
    ceilings = {
        (job.repeat, worker_group(job.point), *ceiling_question(job.point))
        for job in jobs
        if job.repeat < CEILING_LAUNCHES and not isinstance(job.point, ScriptPoint)
    }
    seconds = len(launches) * LAUNCH_SECONDS + settings.ceilings * len(ceilings) * CEILING_SECONDS
    return seconds * max(1.0, crowding)


def link_seconds(payload_bytes: int, point: Point) -> float:
    """Least seconds of an all-reduce over the point's shaped links: in a ring each carries 2 (n - 1) / n of the payload."""
    n = point.world_size or 1
    return (
        8 * COMPRESSIONS[point.compression].crossing_share(n) * payload_bytes / (point.link_bits_per_second or math.inf)
    )


def ceiling_question(point: Point) -> tuple[object, ...]:
    """The values of a point on which its ceilings depend; workers measure the ceilings of points that agree in them once."""
    return (point.precision, point.gemm, *product_question(point))


@cache
def measure_gemm_flops_per_second() -> float:
    """FLOP/s of float32 matrix products in numpy on all of this process's cores, on which the estimates of time rest.

    Other work on the machine should not change it. So the products are too small for numpy's library to use a second
    thread (which would wait for a core), processor time of this thread counts, and the fastest of some hundreds is
    multiplied by the cores.
    """
    import numpy as np

    size, count = 64, 32
    a = np.ones((count, size, size), dtype=np.float32)
    best = float("inf")
    begun = time.thread_time()
    while time.thread_time() - begun < 0.1:
        started = time.thread_time()
        a @ a
        if (seconds := time.thread_time() - started) > 0:
            best = min(best, seconds)
    return usable_cores() * 2 * count * size**3 / best


def estimate_rank_bytes(point: Point) -> int:
    """What one rank of `point` should need of this host's memory, at its peak."""
    is_native = multiplies_natively(PRECISIONS[point.precision].compute_dtype, device="cpu")
    return estimate_memory(point, is_native=is_native).peak_bytes


def describe_shortages(
    jobs: Sequence[Job], *, memory_bytes: int, limit_bytes: int | None = None, is_single_host: bool = True
) -> list[str]:
    """Warnings of points that should not fit into memory, one line each.

    Args:
        jobs: Their points count once, however often they are launched.
        memory_bytes: Of this host, for all ranks of a point on a single host. On several hosts it is not known yet how
            many ranks share one, so it is compared with the need of one rank.
        limit_bytes: Of each worker; None: no limit.
        is_single_host: Whether all ranks run here.
    """
    lines = []
    for point in {job.point.point_id: job.point for job in jobs}.values():
        if point.device == "cuda" or isinstance(point, ScriptPoint):
            continue
        rank_bytes = estimate_rank_bytes(point)
        ranks = (point.world_size or 1) if is_single_host else 1
        needs = f"{point.point_id} should need about {rank_bytes / 2**30:.1f} GiB a rank"
        if limit_bytes is not None and rank_bytes > limit_bytes:
            lines.append(f"{needs}, more than the limit of {limit_bytes / 2**30:.1f} GiB")
        elif ranks * rank_bytes > memory_bytes:
            together = f"and its {ranks} ranks together more" if ranks > 1 else "more"
            lines.append(f"{needs}, {together} than this host's {memory_bytes / 2**30:.1f} GiB")
    return lines
