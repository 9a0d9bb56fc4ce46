"""The cases of an `hvbench allreduce`, their order, and the launcher's task for each. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hvbench.communication.record import AllreduceRequest, CallSettings, Case
from hvbench.launch.task import Task
from hvbench.plan.estimates import TIMEOUT_FLOOR_SECONDS
from hvbench.registry import FRAMEWORKS
from hvbench.spec.exchange import CONTROLLERS

REFERENCES = ("mpi4py", "ring")  # MPI's own all-reduce, and a ring written on its sends and receives
IMPLEMENTATIONS = (*FRAMEWORKS, *REFERENCES)
SECONDS_PER_BYTE = 100e-9  # of a call, for the time limit: ten times as long as on a slow link


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """One launch of one case."""

    case: Case
    repeat: int

    @property
    def key(self) -> str:
        """Name of the record's file, without its extension."""
        return f"{self.case.case_id}.r{self.repeat}"


def list_sizes(begin: int, end: int, *, factor: int) -> list[int]:
    """Payloads in bytes, from `begin` to at most `end` by `factor`, rounded down to whole float32 values."""
    sizes = [begin]
    while sizes[-1] * factor <= end:
        sizes.append(sizes[-1] * factor)
    return [size - size % 4 for size in sizes]


@dataclass(frozen=True, kw_only=True)
class CaseAxes:
    """The values whose cartesian product are the cases."""

    implementations: Sequence[str]
    controllers: Sequence[str]
    compressions: Sequence[str]
    world_sizes: Sequence[int]
    sizes: Sequence[int]  # payloads in bytes
    links: Sequence[int | None] = (None,)  # bits per second; None: as they are


def list_cases(axes: CaseAxes) -> list[Case]:
    """The cartesian product of `axes`, without what does not exist: the references use MPI and no compression."""
    product = itertools.product(
        axes.world_sizes, axes.links, axes.implementations, axes.controllers, axes.compressions, axes.sizes
    )
    return [
        Case(
            implementation=implementation,
            controller=controller,
            compression=compression,
            world_size=world_size,
            payload_bytes=size,
            link_bits_per_second=link,
        )
        for world_size, link, implementation, controller, compression, size in product
        if implementation in FRAMEWORKS or (controller == "mpi" and compression == "none")
    ]


def plan_jobs(cases: Sequence[Case], *, repeats: int, done: Collection[str] = ()) -> list[CaseJob]:
    """Launches in running order, without those in `done` (keys): all cases once per repeat, grouped by shared workers.

    Repeats are the outer loop, so that a disturbance of the machine hits at most one launch of a case.
    """
    groups = list(dict.fromkeys(worker_group(case) for case in cases))
    ordered = sorted(cases, key=lambda case: groups.index(worker_group(case)))
    jobs = [CaseJob(case=case, repeat=repeat) for repeat in range(repeats) for case in ordered]
    return [job for job in jobs if job.key not in done]


def worker_group(case: Case) -> tuple[object, ...]:
    """Key of the workers that a case needs: cases with equal keys run in the same workers."""
    return (case.implementation, case.controller, case.world_size, case.link_bits_per_second)


def make_task(job: CaseJob, settings: CallSettings) -> Task:
    """The launcher's task for one job."""
    case = job.case
    calls = 2 * (settings.warmup_calls + settings.most_calls)  # each may need one before it
    return Task(
        group=(job.repeat, *worker_group(case)),
        framework=case.implementation,
        world_size=case.world_size,
        device="auto",
        job=AllreduceRequest(case=case, settings=settings).model_dump(),
        timeout_seconds=TIMEOUT_FLOOR_SECONDS + calls * case.payload_bytes * SECONDS_PER_BYTE,
        by_mpirun=CONTROLLERS[case.controller].needs_mpirun,
        link_bits_per_second=case.link_bits_per_second,
    )
