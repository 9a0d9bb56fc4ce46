"""Pairs of points, one configuration in two frameworks each: traced, and compared tensor by tensor."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.launch.coordinator import Coordinator
from hvbench.parity.compare import Deviation, compare_traces
from hvbench.parity.run import DIGESTS, NO_LIMITS, Limits, TracedPoint, estimate_trace_bytes, forget, run_traces
from hvbench.parity.tolerances import tolerances_for
from hvbench.registry import FRAMEWORKS
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.labels import distinguish, short_name
from hvbench.spec.point import Point, in_framework

MAX_TRACE_BYTES = 4 * 2**30  # of all traces that wait for their counterpart on disk; a single pair may be larger

PointPair = tuple[Point, Point]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One configuration in two frameworks."""

    points: PointPair
    deviations: list[Deviation]
    problem: str | None  # why nothing could be compared
    overflows: tuple[int, int] = (0, 0)  # of either point: loss scales tried before one fitted the first gradients
    updates: int = 0  # that both trained
    horizon: int | None = None  # updates beyond which rounding is amplified; see `hvbench.parity.horizon`

    @property
    def is_compared(self) -> bool:
        """Whether anything was compared: only then can a difference be said to exist."""
        return self.problem is None and bool(self.deviations)

    @property
    def is_proven(self) -> bool:
        """Whether both did the same work: something was compared, and all of it lies within its tolerance."""
        return self.is_compared and all(each.is_within for each in self.deviations)


def check_parity(coordinator: Coordinator, points: Iterable[Point], *, steps: int) -> list[Parity]:
    """Trace each configuration among `points` once in every framework and compare the first framework with the others.

    `points` have a resolved `world_size`; those that differ only in their framework are one configuration. Raises
    LaunchError when ranks are lost.
    """
    return list(check_pairs(coordinator, pair_up(points), steps=steps))


def pair_up(points: Iterable[Point], *, frameworks: Sequence[str] = FRAMEWORKS) -> list[PointPair]:
    """Each configuration among `points` in the first of `frameworks` and in each of the others, in order."""
    pairs = []
    for point in points:
        first = in_framework(point, frameworks[0])
        pairs += [(first, in_framework(first, name)) for name in frameworks[1:]]
    return list(dict.fromkeys(pairs))


def check_pairs(
    coordinator: Coordinator,
    pairs: Sequence[PointPair],
    *,
    steps: int,
    limits: Limits = NO_LIMITS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Parity]:
    """Compare the points of each pair over `steps` updates, as soon as both are traced.

    `report` is called with a line before each trace.

    A trace that fails is a problem of its pair alone. Raises LaunchError when ranks are lost, and Interrupted.
    """
    batches = split_by_size(pairs)
    total = sum(len({point for pair in batch for point in pair}) for batch in batches)
    begun, told = itertools.count(1), distinguish(point for pair in pairs for point in pair)

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


def split_by_size(pairs: Sequence[PointPair]) -> list[list[PointPair]]:
    """Pairs in order, cut where the traces of their first points would together exceed MAX_TRACE_BYTES."""
    batches: list[list[PointPair]] = []
    size = 0
    for pair in pairs:
        need = estimate_trace_bytes(pair[0])
        if not batches or size + need > MAX_TRACE_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(pair)
        size += need
    return batches


def compare_points(a: TracedPoint, b: TracedPoint) -> Parity:
    """Deviations of `a` from `b` on every rank, and whether each one's ranks hold the same gradients and parameters."""
    pair = (a.point, b.point)
    for traced in (a, b):
        if traced.failure:
            status, message = traced.failure.status, traced.failure.message
            return Parity(points=pair, deviations=[], problem=f"{traced.point.framework} {status}: {message}")
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
    for traced in (a, b) if STRATEGIES[a.point.strategy].exchanges else ():  # ranks that exchange nothing share nothing
        for kind in DIGESTS:
            differing = sum(digests[kind] != traced.digests[0][kind] for digests in traced.digests)
            name = f"{traced.point.framework}/ranks_with_other_{kind}"
            deviations.append(Deviation(name=name, relative_error=float(differing), tolerance=0.0))
    for rank in sorted(a.ranks.keys() & b.ranks.keys()):
        for deviation in compare_traces(a.ranks[rank], b.ranks[rank], tolerances=tolerances):
            name = f"rank{rank}/{deviation.name}"
            deviations.append(
                Deviation(name=name, relative_error=deviation.relative_error, tolerance=deviation.tolerance)
            )
    return deviations
