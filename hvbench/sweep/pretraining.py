"""The pretrainings of a sweep: which its jobs start from, who trains each of them, and their launches.

Every pretraining is a job before all others, trained once a seed by one framework; the points of all frameworks start from
its checkpoint, whose digest stands in every record's parity stamp. A checkpoint that an earlier session left is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hvbench.launch.coordinator import Coordinator
from hvbench.launch.requests import PretrainRequest
from hvbench.launch.task import Failure, FailureStatus, StartFailed, Task, TaskEnd
from hvbench.plan.estimates import estimate_seconds, time_limit_seconds
from hvbench.plan.jobs import Job, launch_facts, worker_group
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point, in_framework
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.tasks import name_text, seeded_point
from hvbench.training.checkpoints import find_checkpoint, identify_checkpoint
from hvbench.training.pretraining import pretrained_file, pretraining_name, pretraining_point

Report = Callable[[str], None]
PHASE = "pretraining"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One language model that jobs start from."""

    name: str
    point: Point  # of the language model, in the framework that trains it
    steps: int
    path: Path  # of its checkpoint
    others: tuple[str, ...]  # frameworks that start from it, too: each trains it where those before cannot start

    @property
    def settings(self) -> MeasureSettings:
        """Its steps, as those of a measurement that nobody times."""
        return MeasureSettings(warmup_steps=1, steps=self.steps - 1)

    @property
    def is_done(self) -> bool:
        """Whether its checkpoint is there, a file or a folder."""
        return find_checkpoint(self.path).exists()

    @property
    def seconds(self) -> float:
        """Rough wall time."""
        return estimate_seconds(Job(point=self.point, repeat=0), self.settings)


def find_pretrainings(jobs: Iterable[Job], settings: MeasureSettings, *, checkpoints: Path) -> list[Pretraining]:
    """What `jobs` start from, each once, in their order; the first of FRAMEWORKS among its jobs trains it."""
    found: dict[Path, list[Point]] = {}
    for job in jobs:
        if job.point.is_pretrained:
            point = seeded_point(job, settings)
            found.setdefault(checkpoints / pretrained_file(point), []).append(point)
    pretrainings = []
    for path, points in found.items():
        first, *others = sorted({point.framework for point in points}, key=FRAMEWORKS.index)
        pretrainings.append(
            Pretraining(
                name=pretraining_name(points[0]),
                point=in_framework(pretraining_point(points[0]), first),
                steps=points[0].pretraining_steps,
                path=path,
                others=tuple(others),
            )
        )
    return pretrainings


def launch_pretrainings(
    coordinator: Coordinator,
    pretrainings: Sequence[Pretraining],
    *,
    timeout_seconds: float | None = None,
    memory_limit_bytes: int | None = None,
    texts: Mapping[str, str] = MappingProxyType({}),
    report: Report,
) -> dict[Path, Failure]:
    """Train those that have no checkpoint yet; path -> why there is none, of those that could not be trained.

    Raises LaunchError when ranks are lost.
    """
    missing = [each for each in pretrainings if not each.is_done]
    failures: dict[Path, Failure] = {}
    while missing:
        limits = {"timeout_seconds": timeout_seconds, "memory_limit_bytes": memory_limit_bytes}
        tasks = [make_pretrain_task(each, texts=texts, **limits) for each in missing]
        ends = run_tasks(coordinator, tasks, announce=lambda index, them=missing: report(describe_start(them[index])))
        failures |= {each.path: failure for each, failure in zip(missing, ends, strict=True) if failure}
        for each, failure in zip(missing, ends, strict=True):
            if not failure:
                failures.pop(each.path, None)
        # One framework that cannot start does not cost the other its points.
        missing = [
            hand_on(each)
            for each, failure in zip(missing, ends, strict=True)
            if failure and failure.phase == "start" and each.others
        ]
    return failures


def run_tasks(
    coordinator: Coordinator, tasks: Sequence[Task], *, announce: Callable[[int], None]
) -> list[Failure | None]:
    """How each task ended: None where it left its checkpoint. `announce` is called with each one's index before it runs."""
    ends: list[Failure | None] = []
    announce(0)
    try:
        for index, end in coordinator.run(tasks):
            ends.append(read_end(end))
            if index + 1 < len(tasks):
                announce(index + 1)
    except StartFailed as error:
        ends += [error.failure] * (len(tasks) - len(ends))
    return ends


def read_end(end: TaskEnd) -> Failure | None:
    """Why a pretraining left no checkpoint; None where it did."""
    if end.failure:
        return end.failure
    for rank, result in enumerate(end.results):
        outcome = result.get("outcome") if isinstance(result, Mapping) else None
        if not isinstance(outcome, Mapping) or outcome.get("status") != "ok":
            is_diverged = isinstance(outcome, Mapping) and outcome.get("status") == "diverged"
            message = outcome.get("message") if isinstance(outcome, Mapping) else None
            return Failure(
                status=FailureStatus.DIVERGED if is_diverged else FailureStatus.FAILED,
                rank=rank,
                phase=PHASE,
                message=str(message or "left a result that is not what a worker writes"),
            )
    return None


def make_pretrain_task(
    pretraining: Pretraining,
    *,
    timeout_seconds: float | None,
    memory_limit_bytes: int | None,
    texts: Mapping[str, str],
) -> Task:
    """The task that trains one language model."""
    point = pretraining.point
    limit = time_limit_seconds(Job(point=point, repeat=0), pretraining.settings)
    return Task(
        group=worker_group(point),
        framework=point.framework,
        world_size=point.world_size or 1,
        device=point.device,
        job=PretrainRequest(
            point=point,
            steps=pretraining.steps,
            path=str(pretraining.path),
            data_digest=texts.get(name_text(point)),
        ).model_dump(),
        timeout_seconds=timeout_seconds or limit,
        memory_limit_bytes=memory_limit_bytes,
        **launch_facts(point),
    )


def hand_on(pretraining: Pretraining) -> Pretraining:
    """The same, trained by the next framework that starts from it."""
    first, *others = pretraining.others
    return Pretraining(**vars(pretraining) | {"point": in_framework(pretraining.point, first), "others": tuple(others)})


def identify_pretrainings(pretrainings: Iterable[Pretraining]) -> dict[str, dict[str, Any]]:
    """Name -> which framework trained it, over how many steps from which seed, and the digest of the checkpoint.

    Those without a checkpoint are left out. Raises UsageError.
    """
    return {each.name: identify_checkpoint(str(each.path)) for each in pretrainings if each.is_done}


def describe_start(pretraining: Pretraining) -> str:
    """One line before it is trained."""
    point = pretraining.point
    frameworks = " and ".join([point.framework, *pretraining.others])
    return (
        f"pretraining: {pretraining.steps} steps of {point.model}, {point.objective}, seed {point.seed}, "
        f"by {point.framework}; where {frameworks} start"
    )
