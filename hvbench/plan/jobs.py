"""What will run, in which order, what is skipped and why, and how long it should take."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hvbench.launch.link import VARIABLE as LINK_VARIABLE
from hvbench.records.environment import multiplies_natively, usable_cores
from hvbench.registry import describe_framework
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts
from hvbench.training.memory import estimate_memory
from hvbench.training.precision import PRECISIONS
from hvbench.training.schedule import ENDING_SCHEDULES

# Of the plain GEMM speed, what a whole training step reaches; measured with `small` on two machines, rounded down.
STEP_EFFICIENCY = 0.35
LAUNCH_SECONDS = 6.0  # import of a framework, per rank that shares a core
POINT_SECONDS = 1.0
CEILING_SECONDS = 1.5  # what hvbench.worker.ceiling costs a rank that has a core to itself, once for each question
ABLATION_STEPS = (
    5  # a round of ablations, in whole steps: three of them, one without an update, a forward pass, an all-reduce
)

# What of a point a set of workers cannot change once it runs, and what of it only Horovod knows.
OF_A_LAUNCH = (
    "strategy", "controller", "fusion_threshold_bytes", "cycle_time_seconds", "autotune", "link_bits_per_second",
)  # fmt: skip
OF_HOROVOD = (
    "compression", "reduction", "controller", "fusion_threshold_bytes", "cycle_time_seconds", "autotune",
    "gradient_predivide",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One launch of one point: repeat 0, 1, … of it."""

    point: Point
    repeat: int

    @property
    def key(self) -> str:
        """Names the record: `POINT_ID.rREPEAT`."""
        return f"{self.point.point_id}.r{self.repeat}"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A point that will not run, and why."""

    point: Point
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Jobs in running order, and everything that will not run."""

    jobs: list[Job]
    skipped: list[Skipped]
    done: list[Job]


def make_plan(
    points: Sequence[Point],
    settings: MeasureSettings,
    *,
    world_size: int,
    done: Iterable[str] = (),
    extra: Iterable[tuple[str, int]] = (),
) -> Plan:
    """Order the launches of `points` on `world_size` ranks; `done` holds the keys of jobs with a record already.

    `extra` are launches, (point id, repeat), that an earlier session added to the planned repeats.

    Repeats are the outer loop, so that the launches of one point are spread over the whole sweep (a machine that drifts
    then widens the interval instead of shifting a point). Within a repeat the points of one framework, world size and
    device follow each other: its workers import the framework once.
    """
    runnable: list[Point] = []
    skipped: list[Skipped] = []
    for point in points:
        resolved = point.model_copy(update={"world_size": point.world_size or world_size})
        reason = reason_to_skip(resolved, world_size=world_size) or reason_not_to_measure(resolved, settings)
        if reason:
            skipped.append(Skipped(point=resolved, reason=reason))
        else:
            runnable.append(resolved)
    groups = list(dict.fromkeys(worker_group(point) for point in runnable))
    finished, added = set(done), set(extra)
    jobs, already = [], []
    for repeat in range(max([settings.repeats, *(repeat + 1 for _, repeat in added)])):
        for point in sorted(runnable, key=lambda point: groups.index(worker_group(point))):
            job = Job(point=point, repeat=repeat)
            if repeat < settings.repeats or (point.point_id, repeat) in added:
                (already if job.key in finished else jobs).append(job)
    return Plan(jobs=jobs, skipped=skipped, done=already)


def number_places(points: Sequence[Point], jobs: Sequence[Job]) -> dict[str, int]:
    """Key of each job -> its place among the launches of `points` (a suite's, in order), whatever is skipped of them.

    A job of another point, such as `hvbench tune` proposes, has none. Two sweeps of a suite that differ in a field which is
    no axis have the same places: where they take turns, they meet there.
    """
    sizes = {job.point.world_size for job in jobs}
    place = {
        each.model_copy(update={"world_size": each.world_size or size}): number
        for size in sizes
        for number, each in enumerate(points)
    }
    return {job.key: place[job.point] + len(points) * job.repeat for job in jobs if job.point in place}


def worker_group(point: Point) -> tuple[Any, ...]:
    """Points with the same group can share workers."""
    return (point.framework, point.world_size or 1, point.device, *(getattr(point, name) for name in OF_A_LAUNCH))


def needs_mpirun(point: Point) -> bool:
    """Whether its workers have to be ranks of MPI."""
    return (point.controller == "mpi" or point.is_served) and (point.world_size or 1) > 1


def launch_facts(point: Point) -> dict[str, Any]:
    """Fields of a `Task` that say how the point's workers are started."""
    settings = {
        "HOROVOD_FUSION_THRESHOLD": point.fusion_threshold_bytes,
        "HOROVOD_CYCLE_TIME": None if point.cycle_time_seconds is None else 1e3 * point.cycle_time_seconds,
        "HOROVOD_AUTOTUNE": 1 if point.autotune else None,
    }
    return {
        "strategy": point.strategy,
        "settings": {
            name: f"{value:g}" if value < 1e6 else str(value) for name, value in settings.items() if value is not None
        },
        "by_mpirun": needs_mpirun(point),
        "servers": 1 if point.is_served and (point.world_size or 1) > 1 else 0,
        "link_bits_per_second": point.link_bits_per_second,
    }


def reason_to_skip(point: Point, *, world_size: int) -> str | None:
    """Why `point` (with a resolved world size) cannot run or makes no sense here; None when it can."""
    if point.hidden_size % point.num_heads:
        return f"hidden_size {point.hidden_size} is not a multiple of num_heads {point.num_heads}"
    try:
        model_facts(point)
    except ValueError:
        return "its sizes are beyond what a record can hold, and any machine"
    if point.world_size > world_size:
        return f"needs {point.world_size} ranks, {world_size} launched"
    if reason := reason_not_to_communicate(point):
        return reason
    if point.gemm != "default" and (
        point.framework != "pytorch" or point.precision != "fp32" or point.device == "cuda"
    ):
        return f"gemm {point.gemm} is a choice of PyTorch's fp32 products on a CPU"
    if point.lr_warmup_steps >= point.schedule_steps and point.schedule in ENDING_SCHEDULES:
        return f"lr_warmup_steps {point.lr_warmup_steps} leaves nothing of schedule_steps {point.schedule_steps}"
    if point.batch_warmup_steps and point.gradient_accumulation_steps == 1:
        return "batch_warmup_steps raises gradient_accumulation_steps, which is 1"
    if point.pretraining != "none" and (point.objective != "classification" or point.initial_checkpoint):
        return f"pretraining {point.pretraining} comes before classification, from the seed"
    if not is_installed(point.framework):
        return f"{point.framework} is not installed here; see hvbench doctor"
    return None


def reason_not_to_communicate(point: Point) -> str | None:
    """Why `point` cannot exchange gradients in the way that it asks for; None when it can."""
    changed = [name for name in OF_HOROVOD if getattr(point, name) != Point.model_fields[name].default]
    if point.world_size == 1 and point.compression != "none":
        return "one rank has nothing to all-reduce: Horovod skips compression"
    if point.world_size == 1 and (point.strategy != "horovod" or changed):
        return f"one rank has nothing to all-reduce: {', '.join(changed) or 'strategy'} changes nothing"
    if point.strategy != "horovod" and changed:
        return f"{', '.join(changed)}: a choice of Horovod's, and the strategy is {point.strategy}"
    if point.is_served and (point.optimizer != "adamw" or point.initial_checkpoint or point.pretraining != "none"):
        return f"{point.strategy}: the server updates by adamw, and from the seed"
    if point.reduction == "adasum" and (point.controller != "mpi" or point.world_size & (point.world_size - 1)):
        return "Horovod's adasum on processors needs controller mpi and 2, 4, 8, … ranks"
    if point.compression == "bf16" and (point.reduction != "average" or point.gradient_predivide != 1.0):
        return "bf16 sums outside Horovod: it knows no adasum and needs no gradient_predivide"
    if point.reduction == "adasum" and point.gradient_predivide != 1.0:
        return "adasum is no sum: gradient_predivide does not apply"
    if needs_mpirun(point) and not has_mpi():
        return "needs mpirun and mpi4py: pip install 'hvbench[mpi]'"
    if point.link_bits_per_second is not None and not os.environ.get(LINK_VARIABLE):
        return f"no link may be shaped here: run it in hvbench lab, or name the interface in {LINK_VARIABLE}"
    return None


def reason_not_to_measure(point: Point, settings: MeasureSettings) -> str | None:
    """Why `settings` ask of `point` what its strategy cannot give; None when they do not."""
    if settings.checkpoint_every and point.is_served:
        return f"checkpoint_every: the optimizer's state is the server's, for the strategy is {point.strategy}"
    if settings.ablation_rounds and point.is_served:
        return f"ablation_rounds: no step goes without the server, which updates, for the strategy is {point.strategy}"
    if settings.noise_every and (point.strategy != "horovod" or point.reduction != "average"):
        return "noise_every compares with gradients that Horovod averages"
    return None


@cache
def has_mpi() -> bool:
    """Whether ranks of MPI can be started, without importing it."""
    from importlib.util import find_spec
    from shutil import which

    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    return find_spec("mpi4py") is not None and bool(which(beside) or which("mpirun"))


def describe_shortages(
    jobs: Sequence[Job], *, memory_bytes: int, limit_bytes: int | None = None, is_single_host: bool = True
) -> list[str]:
    """A line for each point that should need more than this host's memory, or more a rank than a worker's limit.

    On a single host all ranks of a point share its memory; on several, nobody knows yet how many do, and one counts.
    """
    lines = []
    for point in {job.point.point_id: job.point for job in jobs}.values():
        if point.device == "cuda":
            continue
        is_native = multiplies_natively(PRECISIONS[point.precision].compute_dtype, device="cpu")
        rank_bytes = estimate_memory(point, is_native=is_native).peak_bytes
        ranks = (point.world_size or 1) if is_single_host else 1
        needs = f"{point.point_id} should need about {rank_bytes / 2**30:.1f} GiB a rank"
        if limit_bytes is not None and rank_bytes > limit_bytes:
            lines.append(f"{needs}, more than the limit of {limit_bytes / 2**30:.1f} GiB")
        elif ranks * rank_bytes > memory_bytes:
            together = f"and its {ranks} ranks together more" if ranks > 1 else "more"
            lines.append(f"{needs}, {together} than this host's {memory_bytes / 2**30:.1f} GiB")
    return lines


@cache
def is_installed(framework: str) -> bool:
    """Whether the framework can be imported, without importing it."""
    from importlib.util import find_spec

    return find_spec(describe_framework(framework).module) is not None


@cache
def measure_gemm_flops_per_second() -> float:
    """Rate of float32 matrix products in numpy on all of this process's cores: the yardstick of the estimates.

    What else the machine does at this moment should not count: hence products so small that numpy's library gives them
    to no second thread (which would spin for its turn on a core), timed by this thread's processor time; the best of
    some hundreds, times the cores.
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


def estimate_seconds(job: Job, settings: MeasureSettings) -> float:
    """Rough wall time of one job on this host's cores, for progress and for time limits; right within a factor of 3."""
    facts = model_facts(job.point)
    steps = settings.warmup_steps + settings.steps
    evaluations = (steps // settings.evaluate_every + 1) if settings.evaluate_every else 0
    if settings.noise_every:
        steps += steps // settings.noise_every + 1  # forward and backward once more
    if settings.ablation_rounds:
        steps += ABLATION_STEPS * (settings.ablation_rounds + 1)  # and an untimed one
    if job.point.pretraining != "none":
        steps += job.point.pretraining_steps
    tokens = facts.tokens_per_step * steps + evaluations * settings.evaluate_samples * job.point.sequence_length / 3
    seconds = tokens * facts.model_flops_per_token / (measure_gemm_flops_per_second() * STEP_EFFICIENCY)
    if job.point.link_bits_per_second:
        seconds += steps * link_seconds(facts.allreduce_bytes_per_step, job.point)
    return seconds + POINT_SECONDS + describe_framework(job.point.framework).trace_seconds


def link_seconds(payload_bytes: int, point: Point) -> float:
    """What a ring all-reduce takes on the point's shaped link at best: 2 (n - 1) / n of the payload crosses each."""
    n = point.world_size or 1
    return 8 * 2 * (n - 1) / n * payload_bytes / (point.link_bits_per_second or math.inf)


def estimate_sweep_seconds(jobs: Sequence[Job], settings: MeasureSettings) -> float:
    """Rough wall time of a sweep, launches included."""
    launches = {(job.repeat, worker_group(job.point)) for job in jobs}
    crowding = max((job.point.world_size or 1 for job in jobs), default=1) / usable_cores()
    ceilings = {(job.repeat, worker_group(job.point), *ceiling_question(job.point)) for job in jobs}
    setup_seconds = len(launches) * LAUNCH_SECONDS + settings.ceilings * len(ceilings) * CEILING_SECONDS
    return setup_seconds * max(1.0, crowding) + sum(estimate_seconds(job, settings) for job in jobs)


def ceiling_question(point: Point) -> tuple[object, ...]:
    """What of a point its ceilings depend on; workers measure those of equal points once."""
    sizes = (point.num_layers, point.hidden_size, point.vocab_size, point.micro_batch_size * point.sequence_length)
    return (point.precision, point.gemm, point.objective == "classification", *sizes)
