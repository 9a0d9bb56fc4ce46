"""A sweep's jobs as tasks for the launcher. Pure, but for the environment variable of taking turns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hvbench.launch.requests import MeasureRequest, ScriptRequest
from hvbench.launch.task import Task
from hvbench.plan.estimates import time_limit_seconds
from hvbench.plan.jobs import Job, launch_facts, worker_group
from hvbench.plan.turns import Side
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings
from hvbench.training.pretraining import pretraining_name
from hvbench.worker.turns import stretch_timeout

PROFILES = "profiles"  # the run's folder of what profilers recorded, by the key of a launch


def make_task(
    job: Job,
    settings: MeasureSettings,
    *,
    place: int | None = 0,
    side: Side | None = None,
    memory_limit_bytes: int | None = None,
    checkpoints: Path = Path("checkpoints"),
    pretrained: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
    folder: Path | None = None,
) -> Task:
    """The task that measures one job.

    Args:
        job: the launch; its point has a resolved `world_size`.
        settings: how it is measured.
        place: its number among the launches that frameworks, or arms of `hvbench ab`, run in turns; None: it takes no turns.
        side: what it shares with the jobs whose workers live at the same time; None: its workers live alone.
        memory_limit_bytes: what one worker may allocate; None: no limit.
        checkpoints: the folder that holds one folder of checkpoints per launch, named by its key, and `pretraining`.
        pretrained: run.json's `pretraining`: a launch that finds other weights there is not trained.
        texts: run.json's `data`, digests by `name_text`: nor one that reads another text.
        folder: in which a script runs.
    """
    point = seeded_point(job, settings)
    common = {
        "group": (job.repeat, worker_group(job.point)),  # repeats are separate launches: with fresh workers
        "beside": None if side is None else (job.repeat, side),
        "framework": job.point.framework,
        "world_size": job.point.world_size or 1,
        "device": job.point.device,
        "timeout_seconds": stretch_timeout(time_limit_seconds(job, settings)),
        "memory_limit_bytes": memory_limit_bytes,
        **launch_facts(job.point),
    }
    about = {"measure": settings, "key": job.key, "repeat": job.repeat, "place": place}
    if isinstance(point, ScriptPoint):
        is_profiled = job.repeat < settings.profile_rounds
        profile = str(checkpoints.parent / PROFILES / job.key) if is_profiled else None
        request = ScriptRequest(point=point, **about, profile=profile)
        return Task(
            job=request.model_dump(),
            command=tuple(point.arguments()),
            folder=str(folder),
            settings={"HVBENCH_SEED": str(point.seed)},
            **common,
        )
    start = pretrained.get(pretraining_name(point), {}) if point.is_pretrained else {}
    request = MeasureRequest(
        point=point,
        **about,
        checkpoints=str(checkpoints),
        data_digest=texts.get(name_text(point)),
        pretraining_digest=start.get("digest"),
    )
    return Task(job=request.model_dump(), **common)


def name_text(point: Point) -> str:
    """What run.json calls the text of a point, with all that its digest depends on."""
    encoding = "" if point.encoding == Point.model_fields["encoding"].default else f", {point.encoding}"
    return f"{point.data}, {point.vocab_size} tokens{encoding}"


def seeded_point(job: Job, settings: MeasureSettings) -> AnyPoint:
    """The point as this repeat trains it: with a seed of its own where `seed_per_repeat` asks for that."""
    return job.point.model_copy(update={"seed": settings.seed_of(job.point.seed, repeat=job.repeat)})
