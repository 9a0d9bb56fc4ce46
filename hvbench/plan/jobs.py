"""What will run, in which order, and what is skipped and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.errors import UsageError
from hvbench.plan.skip import reason_not_to_measure, reason_to_skip
from hvbench.spec.knob import changed_fields, knobs_of
from hvbench.spec.point import AnyPoint
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings


@dataclass(frozen=True, kw_only=True)
class Job:
    """One launch of one point: repeat 0, 1, … of it."""

    point: AnyPoint
    repeat: int

    @property
    def key(self) -> str:
        """Names the record: `POINT_ID.rREPEAT`."""
        return f"{self.point.point_id}.r{self.repeat}"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A point that will not run, and why."""

    point: AnyPoint
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Jobs in running order, and everything that will not run."""

    jobs: list[Job]
    skipped: list[Skipped]
    done: list[Job]


def make_plan(
    points: Sequence[AnyPoint],
    settings: MeasureSettings | None,
    *,
    world_size: int,
    done: Iterable[str] = (),
    extra: Iterable[tuple[str, int]] = (),
    assumes_frameworks: bool = False,
) -> Plan:
    """Put the launches of `points` in running order, without those that cannot run.

    Repeats are the outer loop, so that the launches of one point are spread over the whole sweep (a machine that drifts
    then widens the interval instead of shifting a point). Within a repeat, points that can share workers follow each
    other: the workers import their framework once. Every other repeat runs backwards: what drifts through a sweep then favours no
    point by its place.

    Args:
        points: A suite's, in order; a point without a `world_size` gets all ranks.
        settings: How they are measured, with the number of repeats; None: nothing is timed, and each is launched once.
        world_size: Ranks that were launched.
        done: Keys of jobs that have a record already.
        extra: Launches, (point id, repeat), that an earlier session added to the planned repeats.
        assumes_frameworks: Plan for a place where every framework is installed, whatever is missing here.
    """
    runnable: list[AnyPoint] = []
    skipped: list[Skipped] = []
    for point in points:
        resolved = point.model_copy(update={"world_size": point.world_size or world_size})
        reason = reason_to_skip(resolved, world_size=world_size, assumes_frameworks=assumes_frameworks)
        if settings and not reason:
            reason = reason_not_to_measure(resolved, settings)
        if reason:
            skipped.append(Skipped(point=resolved, reason=reason))
        else:
            runnable.append(resolved)
    ordered = in_order_of_groups(runnable)
    finished, added = set(done), set(extra)
    jobs, already = [], []
    repeats = settings.repeats if settings else 1
    for repeat in range(max([repeats, *(repeat + 1 for _, repeat in added)])):
        for point in ordered if repeat % 2 == 0 else ordered[::-1]:
            job = Job(point=point, repeat=repeat)
            if repeat < repeats or (point.point_id, repeat) in added:
                (already if job.key in finished else jobs).append(job)
    return Plan(jobs=jobs, skipped=skipped, done=already)


def in_order_of_groups(points: Sequence[AnyPoint]) -> list[AnyPoint]:
    """`points` with those together that can share workers, groups in the order of their first points."""
    groups: dict[tuple[Any, ...], list[AnyPoint]] = {}
    for point in points:
        groups.setdefault(worker_group(point), []).append(point)
    return [point for group in groups.values() for point in group]


def require_runnable(plan: Plan, *, where: str) -> None:
    """Raise UsageError, with every reason, where a plan skips all of its points; `where` names the suite."""
    if not plan.jobs and not plan.done:
        reasons = "; ".join(sorted({skipped.reason for skipped in plan.skipped}))
        raise UsageError(f"{where}: none of its {len(plan.skipped)} points can run: {reasons}")


def number_places(points: Sequence[AnyPoint], jobs: Sequence[Job]) -> dict[str, int]:
    """Key of each job -> its place among the launches of `points` (a suite's, in order), whatever is skipped of them.

    A job of another point, such as `hvbench tune` proposes, has none. Two sweeps of one suite that differ in a field which is
    no axis give their launches the same places: where sweeps take turns, launches with the same place run together.
    """
    sizes = {job.point.world_size for job in jobs}
    place = {
        each.model_copy(update={"world_size": each.world_size or size}): number
        for size in sizes
        for number, each in enumerate(points)
    }
    return {job.key: place[job.point] + len(points) * job.repeat for job in jobs if job.point in place}


def worker_group(point: AnyPoint) -> tuple[Any, ...]:
    """Points with the same group can share workers: they agree in every field that a set of workers cannot change.

    The processes of a script run one point.
    """
    if isinstance(point, ScriptPoint):
        return (point,)
    return tuple(getattr(point, name) for name, knob in knobs_of(type(point)).items() if knob.is_of_launch)


def launch_facts(point: AnyPoint) -> dict[str, Any]:
    """Fields of a `Task` that say how the point's workers are started."""
    if isinstance(point, ScriptPoint):
        return {"strategy": point.strategy}
    return {
        "strategy": point.strategy,
        "settings": horovod_variables(point),
        "by_mpirun": point.needs_mpirun,
        "servers": point.servers if point.is_served and (point.world_size or 1) > 1 else 0,
        "link_bits_per_second": point.link_bits_per_second,
    }


def horovod_variables(point: AnyPoint) -> dict[str, str]:
    """Environment variable -> text, of those fields that Horovod reads there and that are not left to it."""
    variables = {}
    for name in changed_fields(point, among=lambda knob: knob.variable is not None):
        knob = knobs_of(type(point))[name]
        value = knob.variable_scale * getattr(point, name)
        variables[knob.variable] = f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return variables
