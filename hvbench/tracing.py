"""Runs traces of points in real workers, and compares the twins by them: the launching side of `hvbench.parity`.

Points that share a framework, a world size and a device share their workers, as in a sweep.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.launch.coordinator import Coordinator, Task
from hvbench.parity import Deviation, Trace, compare_traces, tolerances_for
from hvbench.plan import worker_group
from hvbench.spec import FRAMEWORKS, MeasureSettings, Point

TRACE_STEPS = 20
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedPoint:
    """A point's trace on every rank; ranks on hosts that do not share this host's files leave only a digest."""

    point: Point
    ranks: dict[int, Trace]
    parameter_digests: list[str]  # one a rank, after the last update
    is_native: bool  # the device of any rank multiplies in the compute dtype
    failure: dict[str, Any] | None  # why there is no trace


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One configuration in both frameworks."""

    points: tuple[Point, Point]
    deviations: list[Deviation]
    problem: str | None  # why nothing could be compared

    @property
    def is_proven(self) -> bool:
        """Whether both did the same work: something was compared, and all of it lies within its tolerance."""
        return self.problem is None and bool(self.deviations) and all(each.is_within for each in self.deviations)


def check_parity(coordinator: Coordinator, points: Iterable[Point], *, steps: int = TRACE_STEPS) -> list[Parity]:
    """Trace each configuration among `points` once in every framework and compare the first framework with the others.

    `points` have a resolved `world_size`; those that differ only in their framework are one configuration. Raises
    LaunchError when workers cannot start.
    """
    configurations = dict.fromkeys(point.model_copy(update={"framework": FRAMEWORKS[0]}) for point in points)
    twins = [[each.model_copy(update={"framework": name}) for name in FRAMEWORKS] for each in configurations]
    traced = trace_points(coordinator, [point for pair in twins for point in pair], steps=steps)
    return [compare_points(traced[pair[0]], traced[other]) for pair in twins for other in pair[1:]]


def trace_points(
    coordinator: Coordinator, points: Sequence[Point], *, steps: int = TRACE_STEPS
) -> dict[Point, TracedPoint]:
    """Train every distinct point for `steps` updates on its ranks; raises LaunchError when workers cannot start."""
    groups = list(dict.fromkeys(worker_group(point) for point in points))
    ordered = sorted(dict.fromkeys(points), key=lambda point: groups.index(worker_group(point)))
    settings = MeasureSettings(warmup_steps=1, steps=steps)
    traced = {}
    with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
        tasks = [make_trace_task(point, settings, folder=folder) for point in ordered]
        for index, end in coordinator.run(tasks):
            traced[ordered[index]] = TracedPoint(
                point=ordered[index],
                ranks={
                    rank: read_trace(Path(folder) / result["file"])
                    for rank, result in enumerate(end.results)
                    if result["file"] is not None
                },
                parameter_digests=[result["parameter_digest"] for result in end.results],
                is_native=any(result["is_native"] for result in end.results),
                failure=end.failure,
            )
    return traced


def compare_points(a: TracedPoint, b: TracedPoint) -> Parity:
    """Deviations of `a` from `b` on every rank, and whether the ranks of each hold identical parameters."""
    pair = (a.point, b.point)
    for each in (a, b):
        if each.failure:
            status, message = each.failure["status"], each.failure["message"]
            return Parity(points=pair, deviations=[], problem=f"{each.point.framework} {status}: {message}")
    tolerances = tolerances_for(b.point, is_native=a.is_native or b.is_native)
    deviations = []
    for each in (a, b):
        differing = sum(value != each.parameter_digests[0] for value in each.parameter_digests)
        name = f"{each.point.framework}/ranks_with_other_parameters"
        deviations.append(Deviation(name=name, relative_error=float(differing), tolerance=0.0))
    for rank in sorted(a.ranks.keys() & b.ranks.keys()):
        for deviation in compare_traces(a.ranks[rank], b.ranks[rank], tolerances=tolerances):
            name = f"rank{rank}/{deviation.name}"
            deviations.append(
                Deviation(name=name, relative_error=deviation.relative_error, tolerance=deviation.tolerance)
            )
    return Parity(points=pair, deviations=deviations, problem=None)


def make_trace_task(point: Point, settings: MeasureSettings, *, folder: str) -> Task:
    """The trace of one point as the launcher needs it; ranks that see `folder` write their tensors there."""
    return Task(
        group=worker_group(point),
        framework=point.framework,
        world_size=point.world_size or 1,
        device=point.device,
        job={"kind": "trace", "point": point.model_dump(), "measure": settings.model_dump(), "folder": folder},
        timeout_seconds=TIMEOUT_SECONDS,
    )


def read_trace(path: Path) -> Trace:
    """The arrays of one trace file, all in memory."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
