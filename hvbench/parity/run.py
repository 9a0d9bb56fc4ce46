"""Runs traces of points in real workers, and compares the twins by them: the launching side of `hvbench.parity.trace`.

Points that share a framework, a world size and a device share their workers, as in a sweep; where sums are rounded on
the wire, workers that send each tensor by itself (`launched_as`). Traces lie in files, and two are compared tensor by
tensor, so that no process holds more than one tensor of each.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.launch.coordinator import Coordinator, StartFailed, Task, TaskEnd
from hvbench.parity.trace import MAX_LOGITS, Deviation, Trace, compare_traces, tolerances_for, trace_name
from hvbench.plan.estimates import time_limit_seconds
from hvbench.plan.jobs import Job, launch_facts, worker_group
from hvbench.registry import FRAMEWORKS
from hvbench.spec.labels import short_name, tell_apart
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts

DIGESTS = ("gradients", "parameters")
TRACE_STEPS = 20

MAX_TRACE_BYTES = 4 * 2**30  # of all traces that wait for their counterpart on disk; a single pair may be larger

Pair = tuple[Point, Point]


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedPoint:
    """A point's trace on every rank; ranks on hosts that do not share this host's files leave only digests."""

    point: Point
    ranks: dict[int, Trace]
    digests: list[dict[str, str]]  # one a rank: of the first gradients, of the parameters after the last update
    is_native: bool  # the device of any rank multiplies in the compute dtype
    failure: dict[str, Any] | None  # why there is no trace
    draw: int | None = None  # which toss of coins moved its initial weights by their last bit


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One configuration in two frameworks."""

    points: Pair
    deviations: list[Deviation]
    problem: str | None  # why nothing could be compared
    overflows: tuple[int, int] = (0, 0)  # of either point: loss scales tried before one fitted the first gradients
    updates: int = 0  # that both trained
    horizon: int | None = (
        None  # updates beyond which one framework alone makes more of a last bit; see `hvbench.parity.horizon`
    )

    @property
    def is_proven(self) -> bool:
        """Whether both did the same work: something was compared, and all of it lies within its tolerance."""
        return self.problem is None and bool(self.deviations) and all(each.is_within for each in self.deviations)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one trace may cost; None: the time follows from the point, the memory has no limit."""

    timeout_seconds: float | None = None
    memory_bytes: int | None = None  # of each worker


NO_LIMITS = Limits()


def check_parity(coordinator: Coordinator, points: Iterable[Point], *, steps: int = TRACE_STEPS) -> list[Parity]:
    """Trace each configuration among `points` once in every framework and compare the first framework with the others.

    `points` have a resolved `world_size`; those that differ only in their framework are one configuration. Raises
    LaunchError when ranks are lost.
    """
    return list(check_pairs(coordinator, pair_up(points), steps=steps))


def pair_up(points: Iterable[Point], *, frameworks: Sequence[str] = FRAMEWORKS) -> list[Pair]:
    """Each configuration among `points` in the first of `frameworks` and in each of the others, in order."""
    pairs = []
    for point in points:
        first = in_framework(point, frameworks[0])
        pairs += [(first, in_framework(first, name)) for name in frameworks[1:]]
    return list(dict.fromkeys(pairs))


def in_framework(point: Point, framework: str) -> Point:
    """The same training in another framework; a choice that only its own framework has falls back to the default."""
    if point.framework == framework:
        return point
    return point.model_copy(update={"framework": framework, "gemm": Point.model_fields["gemm"].default})


def check_pairs(
    coordinator: Coordinator,
    pairs: Sequence[Pair],
    *,
    steps: int,
    limits: Limits = NO_LIMITS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Parity]:
    """Compare the points of each pair over `steps` updates, as soon as both are traced; `report` hears of each trace.

    A trace that fails is a problem of its pair alone. Raises LaunchError when ranks are lost, and Interrupted.
    """
    batches = split_by_size(pairs)
    total = sum(len({point for pair in batch for point in pair}) for batch in batches)
    begun, told = itertools.count(1), tell_apart(point for pair in pairs for point in pair)

    def announce(point: Point) -> None:
        report(f"parity {next(begun)} of {total}: {short_name(point)}{told[point]}")

    for batch in batches:
        waiting = list(batch)
        points = [point for pair in batch for point in pair]
        traced: dict[Point, TracedPoint] = {}
        with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
            run = run_traces(coordinator, points, folder=folder, steps=steps, limits=limits, announce=announce)
            with contextlib.closing(run):
                for new in run:
                    traced[new.point] = new
                    for pair in [pair for pair in waiting if all(point in traced for point in pair)]:
                        waiting.remove(pair)
                        yield compare_points(traced[pair[0]], traced[pair[1]])
                        remaining = {point for pair in waiting for point in pair}
                        for point in set(pair) - remaining:
                            forget(traced.pop(point), folder=Path(folder))


def split_by_size(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs in order, cut where the traces of their first points would together exceed MAX_TRACE_BYTES."""
    batches: list[list[Pair]] = []
    size = 0
    for pair in pairs:
        need = estimate_trace_bytes(pair[0])
        if not batches or size + need > MAX_TRACE_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(pair)
        size += need
    return batches


def estimate_trace_bytes(point: Point) -> int:
    """Size of a point's trace: gradients and updates once, logits of every rank."""
    logits = min(point.micro_batch_size * point.sequence_length * point.vocab_size, 2 * MAX_LOGITS)
    return 4 * (2 * model_facts(point).parameters + (point.world_size or 1) * logits)


def trace_points(
    coordinator: Coordinator, points: Sequence[Point], *, steps: int = TRACE_STEPS
) -> dict[Point, TracedPoint]:
    """Train every distinct point for `steps` updates on its ranks; all traces in memory. Raises LaunchError."""
    traced = {}
    with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
        for each in run_traces(coordinator, points, folder=folder, steps=steps):
            ranks = {rank: dict(trace) for rank, trace in each.ranks.items()}
            forget(each, folder=Path(folder))
            traced[each.point] = TracedPoint(**{**vars(each), "ranks": ranks})
    return traced


def run_traces(
    coordinator: Coordinator,
    points: Iterable[Point],
    *,
    folder: str,
    steps: int,
    limits: Limits = NO_LIMITS,
    announce: Callable[[Point], None] = lambda point: None,
    draws: Sequence[int | None] = (None,),
) -> Iterator[TracedPoint]:
    """Yield a trace of every distinct point for each of `draws`, its arrays read from `folder` when they are asked for.

    `announce` is told each point before it is traced. A draw is a toss of coins that moves the initial weights by their
    last bit; None: they stay. Workers that do not start are a failure of all points that they were started for; raises
    LaunchError when ranks are lost.
    """
    distinct = list(dict.fromkeys(points))
    groups = list(dict.fromkeys(worker_group(launched_as(point)) for point in distinct))
    settings = MeasureSettings(warmup_steps=1, steps=steps)
    for group in groups:
        left = [(point, draw) for point in distinct if worker_group(launched_as(point)) == group for draw in draws]
        tasks = [make_trace_task(point, settings, folder=folder, limits=limits, draw=draw) for point, draw in left]
        announce(left[0][0])
        try:
            for _, end in coordinator.run(tasks):
                point, draw = left.pop(0)
                yield replace(read_end(point, end, folder=Path(folder)), draw=draw)
                if left:
                    announce(left[0][0])
        except StartFailed as error:
            for point, draw in left:
                yield TracedPoint(point=point, ranks={}, digests=[], is_native=False, failure=error.failure, draw=draw)


def launched_as(point: Point) -> Point:
    """`point`, with the settings of the workers that trace it: without tensor fusion where the order of a sum shows.

    A ring adds up one rank after the other, and among three and more each partial sum is rounded to what goes over the
    wire. Which rank an element's sum begins at follows from its place in the buffer of all tensors that were ready at
    the same time: in fp16, one framework's gradients on four ranks differ by 4e-4 from launch to launch. A tensor that
    is sent by itself has one place: then they agree to the last bit.
    """
    is_ordered_by_time = point.strategy == "horovod" and point.compression == "fp16" and (point.world_size or 1) > 2
    return point.model_copy(update={"fusion_threshold_bytes": 0}) if is_ordered_by_time else point


def read_end(point: Point, end: TaskEnd, *, folder: Path) -> TracedPoint:
    """What the workers of one trace left; what cannot be read is a failure too."""
    failure = end.failure
    try:
        if not failure:
            files = {rank: result["file"] for rank, result in enumerate(end.results) if result["file"] is not None}
            return TracedPoint(
                point=point,
                ranks={rank: np.load(folder / file, allow_pickle=False) for rank, file in files.items()},
                digests=[{kind: result["digests"][kind] for kind in DIGESTS} for result in end.results],
                is_native=any(result["is_native"] for result in end.results),
                failure=None,
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        failure = {"status": "failed", "message": f"left a trace that cannot be read: {type(error).__name__}: {error}"}
    return TracedPoint(point=point, ranks={}, digests=[], is_native=False, failure=failure)


def forget(traced: TracedPoint, *, folder: Path) -> None:
    """Close and delete a trace's files."""
    for trace in traced.ranks.values():
        trace.close()
    for path in folder.glob(f"{trace_name(traced.point, traced.draw)}-rank*"):
        path.unlink()


def compare_points(a: TracedPoint, b: TracedPoint) -> Parity:
    """Deviations of `a` from `b` on every rank, and whether each one's ranks hold the same gradients and parameters."""
    pair = (a.point, b.point)
    for each in (a, b):
        if each.failure:
            status, message = each.failure["status"], each.failure["message"]
            return Parity(points=pair, deviations=[], problem=f"{each.point.framework} {status}: {message}")
    try:
        deviations = find_deviations(a, b)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return Parity(points=pair, deviations=[], problem=f"traces cannot be compared: {error}")
    overflows = tuple(int(each.ranks[0]["overflows"]) if 0 in each.ranks else 0 for each in (a, b))
    updates = len(a.ranks[0]["loss"]) if 0 in a.ranks else 0
    return Parity(points=pair, deviations=deviations, problem=None, overflows=overflows, updates=updates)


def find_deviations(a: TracedPoint, b: TracedPoint) -> list[Deviation]:
    """Everything that `compare_points` compares; raises ValueError when the traces hold different quantities."""
    tolerances = tolerances_for(b.point, is_native=a.is_native or b.is_native)
    deviations = []
    for each in (a, b) if a.point.strategy != "local" else ():  # ranks that exchange nothing share nothing
        for kind in DIGESTS:
            differing = sum(digests[kind] != each.digests[0][kind] for digests in each.digests)
            name = f"{each.point.framework}/ranks_with_other_{kind}"
            deviations.append(Deviation(name=name, relative_error=float(differing), tolerance=0.0))
    for rank in sorted(a.ranks.keys() & b.ranks.keys()):
        for deviation in compare_traces(a.ranks[rank], b.ranks[rank], tolerances=tolerances):
            name = f"rank{rank}/{deviation.name}"
            deviations.append(
                Deviation(name=name, relative_error=deviation.relative_error, tolerance=deviation.tolerance)
            )
    return deviations


def make_trace_task(
    point: Point, settings: MeasureSettings, *, folder: str, limits: Limits = NO_LIMITS, draw: int | None = None
) -> Task:
    """The trace of one point as the launcher needs it; ranks that see `folder` write their tensors there."""
    job = {
        "kind": "trace",
        "point": point.model_dump(),
        "measure": settings.model_dump(),
        "folder": folder,
        "draw": draw,
    }
    launched = launched_as(point)
    return Task(
        group=worker_group(launched),
        framework=point.framework,
        world_size=point.world_size or 1,
        device=point.device,
        job=job,
        timeout_seconds=limits.timeout_seconds or time_limit_seconds(Job(point=point, repeat=0), settings),
        memory_limit_bytes=limits.memory_bytes,
        **launch_facts(launched),
    )


def read_trace(path: Path) -> Trace:
    """The arrays of one trace file, all in memory."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
