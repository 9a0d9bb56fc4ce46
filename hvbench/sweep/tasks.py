"""A sweep's jobs as tasks for the launcher. Pure, but for the environment variable of taking turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvbench.launch.requests import MeasureRequest, ScriptRequest
from hvbench.launch.task import Task
from hvbench.plan.estimates import time_limit_seconds
from hvbench.plan.jobs import Job, launch_facts, worker_group
from hvbench.plan.turns import Side, configuration_of
from hvbench.spec.objective import OBJECTIVES
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings
from hvbench.training.pretraining import pretraining_name
from hvbench.worker.turns import stretch_timeout

PROFILES = "profiles"  # the run's folder of what profilers recorded, by the key of a launch


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a sweep gives to all of its tasks."""

    settings: MeasureSettings
    checkpoints: Path = Path("checkpoints")  # one folder of checkpoints a launch, named by its key, and `pretraining`
    # run.json's `pretraining`: a launch that finds other weights there is not trained
    pretrained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # run.json's `data`, digests by `name_text`: nor one that reads another text
    texts: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # run.json's `initial_weights`, by their folder
    folder: Path | None = None  # in which a script runs
    may_end_early: bool = False
    steps_folder: Path | None = (
        None  # of a file a launch, to which rank 0 appends its steps' samples; None: nobody follows them
    )


def make_task(
    job: Job, shared: Shared, *, place: int | None = 0, side: Side | None = None, arm: str | None = None
) -> Task:
    """The task that measures one job, whose point has a resolved `world_size`.

    Args:
        job: the launch.
        shared: what it has in common with the others.
        place: its number among the launches that frameworks, or arms of `hvbench ab`, run in turns; None: it takes no turns.
        side: what it shares with the jobs whose workers live at the same time; None: its workers live alone.
        arm: the name by which its workers, which it shares with no job of another arm, take turns; None: their framework's.
    """
    point = seeded_point(job, shared.settings)
    request, own = (
        script_request(job, point, shared) if isinstance(point, ScriptPoint) else measure_request(job, point, shared)
    )
    steps_file = None if shared.steps_folder is None else str(shared.steps_folder / f"{job.key}.jsonl")
    # Repeats are separate launches: with fresh workers. So is every point under a limit of memory: what an allocator has kept of the
    # point before would count against it.
    alone = () if shared.settings.memory_limit_bytes is None else (configuration_of(job.point).point_id,)
    return Task(
        group=(job.repeat, worker_group(job.point), *alone, *([arm] if arm else [])),
        arm=arm or "",
        beside=None if side is None else (job.repeat, side, *alone),
        framework=job.point.framework,
        world_size=job.point.world_size or 1,
        device=job.point.device,
        job=request.model_copy(update={"place": place, "steps_file": steps_file}).model_dump(),
        timeout_seconds=stretch_timeout(time_limit_seconds(job, shared.settings)),
        memory_limit_bytes=shared.settings.memory_limit_bytes,
        **launch_facts(job.point),
        **own,
    )


def script_request(job: Job, point: ScriptPoint, shared: Shared) -> tuple[ScriptRequest, dict[str, Any]]:
    """What a script's probe is asked, and the fields of a Task by which the script is run."""
    is_profiled = job.repeat < shared.settings.profile_rounds
    profile = str(shared.checkpoints.parent / PROFILES / job.key) if is_profiled else None
    request = ScriptRequest(point=point, measure=shared.settings, key=job.key, repeat=job.repeat, profile=profile)
    environment = {"HVBENCH_SEED": str(point.seed)}
    own = {"command": tuple(point.arguments()), "variables": point.variables(), "folder": str(shared.folder)}
    return request, {**own, "settings": environment}


def measure_request(job: Job, point: Point, shared: Shared) -> tuple[MeasureRequest, dict[str, Any]]:
    """What workers of an implementation here are asked; no further field of a Task."""
    start = shared.pretrained.get(pretraining_name(point), {}) if point.is_pretrained else {}
    request = MeasureRequest(
        point=point,
        measure=shared.settings,
        key=job.key,
        repeat=job.repeat,
        checkpoints=str(shared.checkpoints),
        may_end_early=shared.may_end_early,
        data_digest=shared.texts.get(name_text(point)),
        pretraining_digest=start.get("digest"),
        weights_digest=shared.weights.get(point.initial_weights or "", {}).get("digest"),
    )
    return request, {}


def name_text(point: Point) -> str:
    """What run.json calls the text of a point, with all that its digest depends on."""
    encoding = "" if point.encoding == Point.model_fields["encoding"].default else f", {point.encoding}"
    tokenizer = f", {point.tokenizer}" if point.tokenizer else ""
    if point.has_label_file and point.pretraining_data and not point.tokenizer:
        tokenizer = f", vocabulary of {point.pretraining_data}"
    labels = (
        ", {label_field} of {text_field} and {second_text_field}, split_seed {split_seed}"
        if point.has_label_file
        else ""
    )
    if point.has_label_file and not point.is_classifier:
        labels += f", {OBJECTIVES[point.objective].labels}"
    return f"{point.data}, {point.vocab_size} tokens{encoding}{tokenizer}{labels.format(**point.model_dump())}"


def seeded_point(job: Job, settings: MeasureSettings) -> AnyPoint:
    """The point as this repeat trains it: with a seed of its own where `seed_per_repeat` asks for that."""
    return job.point.model_copy(update={"seed": settings.seed_of(job.point.seed, repeat=job.repeat)})
