"""Traces of points, recorded by real workers: which workers, in which order, and what they left.

Points that share a framework, a world size and a device share their workers, as in a sweep; where sums are rounded on
the wire, workers that send each tensor by itself (`launched_as`). Traces lie in files until they are compared, so that
no process holds more than a tensor of each.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hvbench.launch.coordinator import Coordinator
from hvbench.launch.requests import TraceRequest
from hvbench.launch.task import Failure, FailureStatus, StartFailed, Task, TaskEnd
from hvbench.parity.trace import MAX_LOGITS, Trace, trace_name
from hvbench.plan.estimates import time_limit_seconds
from hvbench.plan.jobs import Job, launch_facts, worker_group
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts

DIGESTS = ("gradients", "parameters")


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedPoint:
    """A point's trace on every rank; ranks on hosts that do not share this host's files leave only digests."""

    point: Point
    ranks: dict[int, Trace]
    digests: list[dict[str, str]]  # one a rank: of the first gradients, of the parameters after the last update
    is_native: bool  # the device of any rank multiplies in the compute dtype
    failure: Failure | None  # why there is no trace
    draw: int | None = None  # seed of the perturbation of its initial weights by one unit in the last place


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one trace may cost; None: the time follows from the point, the memory has no limit."""

    timeout_seconds: float | None = None
    memory_bytes: int | None = None  # of each worker


NO_LIMITS = Limits()


def estimate_trace_bytes(point: Point) -> int:
    """Size of a point's trace: gradients and updates once, logits of every rank."""
    logits = min(point.micro_batch_size * point.sequence_length * point.vocab_size, 2 * MAX_LOGITS)
    return 4 * (2 * model_facts(point).parameters + (point.world_size or 1) * logits)


def trace_points(coordinator: Coordinator, points: Sequence[Point], *, steps: int) -> dict[Point, TracedPoint]:
    """Train every distinct point for `steps` updates on its ranks; all traces in memory. Raises LaunchError."""
    traced = {}
    with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
        for new in run_traces(coordinator, points, folder=folder, steps=steps):
            ranks = {rank: dict(trace) for rank, trace in new.ranks.items()}
            forget(new, folder=Path(folder))
            traced[new.point] = TracedPoint(**{**vars(new), "ranks": ranks})
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
    """Yield a trace of every distinct point for each of `draws`; its arrays are read from `folder` on access.

    A draw seeds a perturbation of the initial weights by one unit in the last place, up or down at random; None leaves
    them as they are. `announce` is called with a point before it is traced. Workers that do not start are a failure of
    all points that they were started for; raises LaunchError when ranks are lost.
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
        except StartFailed as error:  # another framework's workers may start
            for point, draw in left:
                yield TracedPoint(point=point, ranks={}, digests=[], is_native=False, failure=error.failure, draw=draw)


def launched_as(point: Point) -> Point:
    """`point`, with the settings of the workers that trace it: without tensor fusion where the order of a sum shows.

    What is compiled shares workers with what is not: a trace holds neither times nor memory.

    A ring all-reduce sums in rank order, beginning at another rank for each segment of the buffer, and with three ranks
    and more every partial sum is rounded to the wire's format. In which segment an element lies follows from which
    tensors were ready at the same time: in fp16, one framework's gradients on four ranks differ by 4e-4 from launch to
    launch. A tensor that is sent by itself always lies in the same segment: then launches agree bit for bit.
    """
    wire = COMPRESSIONS[point.compression].wire
    is_summed_on_the_wire = STRATEGIES[point.strategy].is_horovod and wire.is_compressed and wire.is_summed_by_horovod
    is_ordered_by_time = is_summed_on_the_wire and (point.world_size or 1) > 2
    settings = {"compile": "none"} | ({"fusion_threshold_bytes": 0} if is_ordered_by_time else {})
    return point.model_copy(update=settings)


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
        message = f"left a trace that cannot be read: {type(error).__name__}: {error}"
        failure = Failure(status=FailureStatus.FAILED, message=message)
    return TracedPoint(point=point, ranks={}, digests=[], is_native=False, failure=failure)


def forget(traced: TracedPoint, *, folder: Path) -> None:
    """Close and delete a trace's files."""
    for trace in traced.ranks.values():
        trace.close()
    for path in folder.glob(f"{trace_name(traced.point, traced.draw)}-rank*"):
        path.unlink()


def make_trace_task(
    point: Point, settings: MeasureSettings, *, folder: str, limits: Limits = NO_LIMITS, draw: int | None = None
) -> Task:
    """The trace of one point as the launcher needs it; ranks that see `folder` write their tensors there."""
    request = TraceRequest(point=point, measure=settings, folder=folder, draw=draw)
    launched = launched_as(point)
    return Task(
        group=worker_group(launched),
        framework=point.framework,
        world_size=point.world_size or 1,
        device=point.device,
        job=request.model_dump(),
        timeout_seconds=limits.timeout_seconds or time_limit_seconds(Job(point=point, repeat=0), settings),
        memory_limit_bytes=limits.memory_bytes,
        **launch_facts(launched),
    )


def read_trace(path: Path) -> Trace:
    """The arrays of one trace file, all in memory."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
