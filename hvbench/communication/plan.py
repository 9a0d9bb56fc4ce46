"""Which cases an `hvbench allreduce` runs, in which order, and as tasks of the launcher. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hvbench.communication.record import CallSettings, Case
from hvbench.launch.coordinator import Task
from hvbench.registry import FRAMEWORKS

REFERENCES = ("mpi4py", "ring")  # MPI's own all-reduce, and a ring written on its sends and receives
IMPLEMENTATIONS = (*FRAMEWORKS, *REFERENCES)
TIMEOUT_SECONDS = 300.0
SECONDS_PER_BYTE = 100e-9  # of a call on a slow link; ten times that, for every call, is a hang


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """One launch of one case."""

    case: Case
    repeat: int

    @property
    def key(self) -> str:
        """Names the record's file."""
        return f"{self.case.case_id}.r{self.repeat}"


def list_sizes(begin: int, end: int, *, factor: int) -> list[int]:
    """Payloads in bytes from `begin` to at most `end`, each `factor` times the one before; whole float32 values."""
    sizes = [begin]
    while sizes[-1] * factor <= end:
        sizes.append(sizes[-1] * factor)
    return [size - size % 4 for size in sizes]


def list_cases(
    *,
    implementations: Sequence[str],
    controllers: Sequence[str],
    compressions: Sequence[str],
    world_sizes: Sequence[int],
    sizes: Sequence[int],
    links: Sequence[int | None] = (None,),
) -> list[Case]:
    """The product of all, less what does not exist: the references are MPI's and compress nothing."""
    product = itertools.product(world_sizes, links, implementations, controllers, compressions, sizes)
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
    """Launches in running order: repeats outside, so that those of one case lie apart; what can share workers together."""
    groups = list(dict.fromkeys(worker_group(case) for case in cases))
    ordered = sorted(cases, key=lambda case: groups.index(worker_group(case)))
    jobs = [CaseJob(case=case, repeat=repeat) for repeat in range(repeats) for case in ordered]
    return [job for job in jobs if job.key not in done]


def worker_group(case: Case) -> tuple[object, ...]:
    """Cases with the same group can share workers."""
    return (case.implementation, case.controller, case.world_size, case.link_bits_per_second)


def make_task(job: CaseJob, settings: CallSettings) -> Task:
    """The job as the launcher needs it."""
    case = job.case
    calls = settings.warmup_calls + settings.most_calls
    return Task(
        group=(job.repeat, *worker_group(case)),
        framework=case.implementation,
        world_size=case.world_size,
        device="auto",
        job={"kind": "allreduce", "case": case.model_dump(), "settings": settings.model_dump()},
        timeout_seconds=TIMEOUT_SECONDS + calls * case.payload_bytes * SECONDS_PER_BYTE,
        by_mpirun=case.controller == "mpi",
        link_bits_per_second=case.link_bits_per_second,
    )
